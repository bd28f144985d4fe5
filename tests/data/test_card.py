"""The card: front matter that YAML and the Hugging Face Hub read, numbers of the dataset."""

from dataclasses import replace

import numpy as np
import pytest

from demokit.data import DatasetWriter, from_arrays
from demokit.data.card import write_card
from demokit.data.changes import Selection
from demokit.data.edit import filter_episodes
from demokit.data.share import make_bundle, pull
from demokit.sharing.giving import pack

yaml = pytest.importorskip("yaml")


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        (None, {}),
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        (
            "ours: ask #1",
            {"license": "other", "license_name": "ours: ask #1", "license_link": "LICENSE"},
        ),
    ],
)
def test_card(tmp_path, metadata, make_episode, license, expected):
    about = replace(metadata, license=license, description="Two: short # episodes")
    with DatasetWriter(tmp_path / "a.hdf5", about) as writer:
        writer.add(make_episode(0))
        writer.add(make_episode(1))
        card = write_card(writer.finish())
    assert card == tmp_path / "a.md"
    _, front, body = card.read_text().split("---\n", 2)
    head = yaml.safe_load(front)
    assert {key: head[key] for key in head if key.startswith("license")} == expected
    assert head["size_categories"] == ["n<1K"]
    assert "point" in head["tags"]
    assert "Two: short # episodes" in body
    assert "| episodes | 2 (10 steps" in body
    assert "| success rate | 50% |" in body
    assert ("none stated" in body) == (license is None)


EVIL = "# a <script>b</script> [c](javascript:d) | `e` ![f](g) **h** &lt; http://i_j_k"


def test_text_of_a_file_is_no_markup(tmp_path, metadata, make_episode):
    markdown = pytest.importorskip("markdown")
    source = replace(metadata.provenance, operator=EVIL, expert=EVIL, missing={EVIL: EVIL})
    about = replace(metadata, license=EVIL, description=EVIL, provenance=source)
    with DatasetWriter(tmp_path / "a.hdf5", about) as writer:
        writer.add(make_episode(0))
        card = write_card(writer.finish())
    body = card.read_text().split("---\n", 2)[2]
    page = markdown.markdown(body, extensions=["tables", "fenced_code"])
    for mark in ("<script", "<a ", "<img", "<strong", 'javascript:d)"', "<h1># a", "<h1>a &"):
        assert mark not in page
    assert page.count("&lt;script&gt;b&lt;/script&gt; [c](javascript:d)") == 6
    assert page.count("<h1>") == 1


def test_a_file_of_the_user_is_no_card(tmp_path, metadata, make_episode, capsys):
    with DatasetWriter(tmp_path / "a.hdf5", replace(metadata, license="MIT")) as writer:
        writer.add(make_episode(0))
        path = writer.finish()
    card = tmp_path / "a.md"
    card.write_text("my notes")
    assert write_card(path) is None
    filter_episodes(path, path, Selection(), overwrite=True)
    pack(make_bundle(path), tmp_path / "a.zip")
    pull(str(tmp_path / "a.zip"), path, overwrite=True)
    assert card.read_text() == "my notes"
    assert capsys.readouterr().err.count(f"{card} is no card of demokit") == 2
    card.unlink()
    before = write_card(path).read_text()
    card.write_text(f"{before}more")
    assert write_card(path).read_text() == before


def test_whatever_writes_a_dataset_refreshes_its_card(tmp_path, metadata, make_episode):
    path, card = tmp_path / "a.hdf5", tmp_path / "a.md"
    with DatasetWriter(path, replace(metadata, license="MIT")) as writer:
        writer.add(make_episode(0))
        write_card(writer.finish())
    with DatasetWriter(path, replace(metadata, license="CC-BY-4.0"), overwrite=True) as writer:
        writer.add(make_episode(0))
        writer.finish()
    assert "| licence | CC-BY-4.0 |" in card.read_text()
    with DatasetWriter(path, metadata, resume=True) as writer:
        writer.add(make_episode(1))
        writer.finish()
    assert "| episodes | 2 (10 steps" in card.read_text()
    episode = {"observations": np.zeros((3, 2)), "actions": np.zeros((2, 1))}
    from_arrays(path, [episode], license="MIT", overwrite=True)
    assert "| licence | MIT |" in card.read_text()
    path.unlink()
    from_arrays(path, [episode], license="0BSD")
    assert "| licence | 0BSD |" in card.read_text()
