"""The docs as a site: built with every link checked, read without network, its notebooks run."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from beside_docs import module

import demokit
import demokit.data

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    env = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class Fetched(HTMLParser):
    """What a browser fetches to show a page: styles, scripts, pictures; no links to follow."""

    def __init__(self, text):
        super().__init__()
        self.addresses = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        said = dict(attrs)
        if tag in ("script", "img", "iframe", "link", "source", "video"):
            self.addresses += filter(None, (said.get("src"), said.get("href")))


def test_every_page_stands_in_the_site(site):
    built = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    pages = {name.replace(".md", ".html") for name in PAGES}
    notebooks = {f"notebooks/{path.stem}.html" for path in NOTEBOOKS}
    assert built == pages | notebooks | {"index.html", "changelog.html", "404.html"}
    assert not list(site.rglob("*.csv.gz"))
    assert not list(site.rglob("*.py"))


def test_what_a_page_shows_is_there_and_nothing_is_fetched(site):
    for page in set(site.rglob("*.html")) - {site / "404.html"}:  # it knows the root of a server
        for address in Fetched(page.read_text()).addresses:
            if address.startswith("data:image/png;base64,"):
                continue
            assert not re.match(r"(\w+:)?//", address), (page, address)
            assert (page.parent / address.split("?")[0].split("#")[0]).exists(), (page, address)
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert not re.findall(r"url\([\"']?(?:https?:)?//", styles)
    assert "fonts.googleapis" not in styles


def test_the_reference_has_the_public_face(site):
    names = {f"demokit.{name}" for name in demokit.__all__ if not name.startswith("__")}
    names |= {f"demokit.data.{name}" for name in demokit.data.__all__}
    names |= {"demokit.envs.from_gymnasium", "demokit.protocols.Agent", "demokit.protocols.Trial"}
    page = (site / "reference.html").read_text()
    assert not {name for name in names if f'id="{name}"' not in page}
    assert 'id="demokit.protocols.Trial.record"' in page
    assert "DemokitError" in page


def test_the_first_page_is_the_readme(site):
    page = (site / "index.html").read_text()
    assert "<h1" in page
    assert 'src="pictures/overview.png"' in page
    assert 'href="docs/' not in page


def test_a_link_that_leaves_the_site_must_lead_somewhere(caplog):
    site = module("site")

    class Page:
        class file:  # noqa: N801 - the library's name
            src_uri = "methods.md"

    kept = site.on_page_markdown("see [this](../README.md#a), ![that](../x.png)", page=Page)
    assert kept == "see this, ![that](../x.png)"
    assert not caplog.records
    site.on_page_markdown("[gone](../nowhere.py)", page=Page)
    assert "nowhere.py, which is not there" in caplog.text


def test_what_a_notebook_shows_is_text():
    site = module("site")
    cell = {"cell_type": "code", "source": ["%%bash -e\n", "ls"]}
    cell["outputs"] = [{"text": ["<b>"]}, {"data": {"text/html": "<script>", "text/plain": "x"}}]
    page = site.from_notebook({"cells": [{"cell_type": "markdown", "source": "# A"}, cell]})
    assert page == "# A\n\n```bash\nls\n```\n\n```text\n<b>\n```\n\n```text\nx\n```\n"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_small_and_as_they_were_run(path):
    assert path.stat().st_size < 100_000
    text = path.read_text()
    assert "/tmp/" not in text
    assert "/home/" not in text
    codes = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert any(cell["outputs"] for cell in codes)
    assert not [out for cell in codes for out in cell["outputs"] if out["output_type"] == "error"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path):
    pytest.importorskip("nbclient")
    done = module("notebooks").executed(path, tmp_path)
    assert [cell.source for cell in done.cells] == [
        "".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]
    ]
