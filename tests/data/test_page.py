"""Pictures and the page: complete in themselves, and safe whatever names a dataset holds."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import Browser, chromium

from demokit.data import ArraySpec, DatasetWriter, open_dataset
from demokit.data.figures import plot, survey
from demokit.data.page import write_page
from demokit.data.summary import action_labels, summarize
from demokit.errors import DemokitError
from demokit.types import Task

EVIL = '<script>alert("x")</script>'


class Reader(HTMLParser):
    """Collects tags and what they refer to."""

    def __init__(self):
        super().__init__()
        self.tags, self.references, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_data(self, data):
        self.text.append(data)


def page_of(dataset, path):
    write_page(dataset, path)
    reader = Reader()
    reader.feed(path.read_text())
    return reader, " ".join(reader.text)


@pytest.fixture
def dataset(tmp_path, metadata, make_episode):
    """Of a family that demokit does not have, with hostile names."""
    task = Task("alien", f"alien/{EVIL}/train/00", (0.5,), "train")
    about = replace(metadata, family="alien", tasks=(task,), description=EVIL, license=EVIL)
    with DatasetWriter(tmp_path / "a.hdf5", about) as writer:
        for i in range(3):
            writer.add(replace(make_episode(i), task=task))
        return open_dataset(writer.finish())


def test_the_page_needs_nothing_else(dataset, tmp_path):
    reader, text = page_of(dataset, tmp_path / "out" / "a.html")
    assert {"img", "table", "title"} <= set(reader.tags)
    assert "script" not in reader.tags
    assert all(reference.startswith("data:image/png;base64,") for reference in reader.references)
    assert not re.search(r"https?://|@import|url\(", (tmp_path / "out" / "a.html").read_text())
    assert EVIL in text
    assert "No frames: Unknown environment 'alien'" in text
    assert summarize(dataset).checksum in text


def test_recorded_images_stand_in_for_what_cannot_be_rendered(tmp_path, metadata, make_episode):
    spaces = {"cam": ArraySpec((8, 9, 3), "uint8", 0, 255)}
    about = replace(metadata, observation_space=spaces)
    cam = np.zeros((6, 8, 9, 3), np.uint8)
    with DatasetWriter(tmp_path / "i.hdf5", about) as writer:
        writer.add(make_episode(0, observations={"cam": cam}))
        made = open_dataset(writer.finish())
    reader, text = page_of(made, tmp_path / "i.html")
    assert "No frames" not in text
    assert reader.tags.count("img") == 4 + 6


def test_wide_arrays_take_one_line_and_pictures_none(tmp_path, metadata, make_episode, invoke):
    grid = {"depth": (np.uint16, (40, 30)), "pair": (np.float32, (2, 3)), "wide": ("f4", (1500,))}
    rng = np.random.default_rng(0)
    seen = {n: rng.integers(0, 9, (6, *s)).astype(k) for n, (k, s) in grid.items()}
    seen["wide"][:] = 3
    seen["wide"][:2, 0] = 0, 8
    spaces = {n: ArraySpec(s, str(np.dtype(k)), 0, 9) for n, (k, s) in grid.items()}
    with DatasetWriter(tmp_path / "a.hdf5", replace(metadata, observation_space=spaces)) as writer:
        writer.add(make_episode(0, observations=seen))
        dataset = open_dataset(writer.finish())
    found = {row.name: row for row in summarize(dataset).ranges}
    assert found.keys() == {"actions", "observations/pair", "observations/wide"}
    assert found["observations/wide"].constant == frozenset(range(1, 1500))
    _, text = page_of(dataset, tmp_path / "a.html")
    assert "observations/wide, 1,500 components float32 0 8 1,499 constant" in " ".join(
        text.split()
    )
    assert "observations/pair, 6 components" in text
    assert all(f"actions: {name}" in text for name in action_labels(metadata))
    assert "1499 of 1500" in invoke("inspect", dataset.path).stdout


def test_the_picture(dataset, tmp_path):
    plot(dataset, tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")
    found = survey(dataset)
    assert found.counts.sum() == 3 * 5 * 2
    assert found.contexts.shape == (3, 1)
    assert found.ends is None
    with pytest.raises(DemokitError, match=r"name it NAME\.png"):
        plot(dataset, tmp_path / "a.nonsense")


def test_no_episodes(tmp_path, dataset):
    with pytest.raises(DemokitError, match="has no episodes"):
        write_page(dataset[:0], tmp_path / "a.html")
    with pytest.raises(DemokitError, match="has no episodes"):
        plot(dataset[:0], tmp_path / "a.png")


def test_the_checksum_is_that_of_the_episodes(dataset, tmp_path, metadata, make_episode):
    before = summarize(dataset, ranges=False).checksum
    assert len(before) == 64
    again = DatasetWriter(tmp_path / "b.hdf5", replace(dataset.metadata, license="other"))
    with again as writer:
        for episode in dataset:
            writer.add(episode)
        writer.finish()
    assert summarize(open_dataset(tmp_path / "b.hdf5")).checksum == before
    with DatasetWriter(tmp_path / "c.hdf5", metadata) as writer:
        writer.add(make_episode(0))
        writer.finish()
    assert summarize(open_dataset(tmp_path / "c.hdf5")).checksum != before


@pytest.mark.skipif(chromium() is None, reason="needs a browser: apt install chromium")
def test_the_page_fits_a_phone_and_is_dark_where_that_is_asked_for(recorded, tmp_path):
    write_page(open_dataset(recorded), tmp_path / "page.html")
    browser = Browser(tmp_path / "profile", (tmp_path / "page.html").as_uri())
    try:
        for dark in (False, True):
            browser.be_a_phone(dark=dark)
            browser.wait_for("document.readyState === 'complete'")
            assert browser.evaluate("document.documentElement.scrollWidth") == 390
            color = browser.evaluate("getComputedStyle(document.body).backgroundColor")
            ground = sum(map(int, re.findall(r"\d+", color)))
            assert ground < 120 if dark else ground > 600
    finally:
        browser.close()
