"""The page and its videos: complete in themselves, and a browser plays them."""

import json
import re
import time
from html.parser import HTMLParser

import imageio.v2 as imageio
import numpy as np
import pytest
from browser import Browser, chromium

from demokit.envs import make_family
from demokit.envs.tasks import make_tasks
from demokit.page import table
from gmps.comparison.page import page
from gmps.comparison.report import Comparison
from gmps.comparison.rows import ACTORS, MAIN, Row, TaskContext
from gmps.comparison.videos import PANEL_SIZE, spread


class Reader(HTMLParser):
    """Collects tags and what they refer to."""

    def __init__(self):
        super().__init__()
        self.tags, self.references = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, point_run, invoke):
    path = tmp_path_factory.mktemp("filmed")
    small = ("--num-tasks", 3, "--adapt-steps", 1, "--videos", 2, "--output-dir", path)
    invoke("evaluate", point_run, *small)
    return path


def test_the_page_needs_nothing_else(folder):
    text = (folder / "report.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.tags.count("video") == 2
    assert "script" not in reader.tags
    assert all(
        reference.startswith(("data:image/png;base64,", "data:video/mp4;base64,"))
        for reference in reader.references
    )
    assert not re.search(r"https?://|@import|url\(", text)


def test_a_video_shows_three_policies_and_then_stands_still(folder):
    films = sorted((folder / "videos").iterdir())
    assert [film.name for film in films] == ["gmps-validation-00.mp4", "gmps-validation-02.mp4"]
    frames = imageio.mimread(films[0], memtest=False)
    family = make_family("point")
    assert frames[0].shape[1] == 3 * PANEL_SIZE[0]
    # 20 steps at the speed of the world, at most 25 pictures a second, and one second more.
    stride = max(1, round(1 / (25 * family.control_dt_s)))
    moving = 1 + -(-family.horizon // stride)
    rate_hz = 1 / (family.control_dt_s * stride)
    assert len(frames) == moving + round(rate_hz)
    still = frames[-1].astype(int) - frames[-2]
    moved = frames[moving - 1].astype(int) - frames[0]
    assert np.abs(still).mean() < 0.1 * np.abs(moved).mean()


@pytest.mark.skipif(chromium() is None, reason="no Chromium")
def test_a_browser_plays_the_videos(folder, tmp_path):
    browser = Browser(tmp_path, f"file://{folder}/report.html")
    # What is out of sight waits; a picture as high as the page shows everything.
    browser.do(
        "Emulation.setDeviceMetricsOverride",
        width=1200,
        height=6000,
        deviceScaleFactor=1,
        mobile=False,
    )
    asked = "JSON.stringify([...document.querySelectorAll('video')].map(v => v.currentTime))"
    try:
        for _ in range(300):
            found = json.loads(browser.do("Runtime.evaluate", expression=asked)["result"]["value"])
            if len(found) == 2 and min(found) > 0:
                break
            time.sleep(0.1)
    finally:
        browser.close()
    assert min(found) > 0


def test_filmed_tasks_are_spread():
    tasks = make_tasks(make_family("point"), "uniform", "validation", num_tasks=9)
    assert [int(task.id[-2:]) for task in spread(tasks, 3)] == [0, 4, 8]
    assert len(spread(tasks, 20)) == 9


def test_names_of_strangers_are_no_markup(tmp_path):
    name = "<script>a"
    rows = [
        Row(name, 0, name, "t/0", MAIN, 3, 1.0, step, actor, 0.0, 0.0)
        for actor in ACTORS
        for step in (0, 1)
    ]
    contexts, told = [TaskContext("t/0", name, {name: 0.0}, ())], {name: name}
    found = Comparison(name, rows, contexts, [told], told, {name: told}, told=told, caveat=name)
    picture = tmp_path / f"{name}.png"
    picture.write_bytes(b"")
    drawn = dict.fromkeys(("evaluation", f"map-{name}", f"tasks-{name}"), picture)
    reader = Reader()
    reader.feed(page(found, drawn))
    assert {"h1", "h3", "p", "td"} <= {*reader.tags}
    assert "script" not in reader.tags


def test_what_stands_in_a_table_is_text():
    assert "<b>" not in table(["<b>"], [["<b>"]])
