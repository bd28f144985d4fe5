"""Looking at episodes and tasks: what is shown when, without a screen and on the real page."""

import re
import sys
import threading

import numpy as np
import pytest
from browser import Browser, chromium
from program import Program

from demokit.data import open_dataset
from demokit.envs import make_family
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.experts import load_expert
from demokit.view.clips import Clip, of_task
from demokit.view.play import Player


class Screen:
    """A scene that notes what it is shown, and presses a button when its turn comes."""

    def __init__(self, player, presses, frames):
        self._player, self._presses, self._frames = player, presses, frames
        self.rows, self.words = [], ()

    def is_open(self):
        return len(self.rows) < self._frames

    def say(self, words):
        self.words = tuple(words)

    def show(self, state, context):
        self.rows.append((int(context[0]), int(state[0])))
        for button in self._presses.get(len(self.rows), ()):
            self._player.press(button)


def shown(presses=None, *, frames=100, count=3, rate_hz=2.0):
    """(clip, row) of every frame, for clips of 4 rows."""
    made = []

    def clip(number):
        made.append(number)
        return Clip(np.arange(4.0)[:, None], np.array([number]), lambda row: [("row", str(row))])

    player = Player(clip, count, rate_hz)
    screen = Screen(player, presses or {}, frames)
    slept = []
    player.run(screen, sleep=slept.append)
    assert set(slept) == {1 / rate_hz}
    return screen, made


def test_the_last_row_stays_for_a_second_then_the_next_clip_begins():
    screen, made = shown(frames=14)
    rows = [0, 1, 2, 3, 3, 3]
    assert screen.rows == [(c, r) for c in (0, 1, 2) for r in rows][:14]
    assert made == [0, 1, 2]
    assert screen.words == (("row", "1"),)


def test_a_single_clip_is_made_once_and_goes_round():
    screen, made = shown(frames=8, count=1)
    assert screen.rows[-2:] == [(0, 0), (0, 1)]
    assert made == [0]


def test_pausing_and_turning_back():
    presses = {2: ["space"], 4: ["left"], 5: ["left", "left"], 6: ["right"], 7: ["p"]}
    screen, _ = shown(presses, frames=9)
    assert [row for _, row in screen.rows] == [0, 1, 1, 1, 0, 0, 1, 1, 2]


def test_clips_are_chosen_and_left():
    screen, made = shown({1: ["page_up"], 3: ["page_down"], 4: ["q"]})
    assert screen.rows == [(0, 0), (2, 0), (2, 1), (0, 0)]
    assert made == [0, 2, 0]


@pytest.mark.parametrize("name", ["door", "point"])
def test_a_task_is_shown_solved_by_the_expert(name):
    family = make_family(name)
    task = make_tasks(family, "uniform", "train", num_tasks=1)[0]
    clip = of_task(family, task, load_expert("scripted", name), [("acts", "expert")])
    assert len(clip.states) == family.horizon + 1
    words = dict(clip.words(family.horizon))
    assert words["solved"] == "yes"
    assert words["step"] == f"{family.horizon}/{family.horizon}"
    assert words["acts"] == "expert"
    assert words["goal"].startswith(family.context.names[0])


def test_without_an_expert_nobody_moves():
    family = make_family("point")
    task = make_tasks(family, "uniform", "train", num_tasks=1)[0]
    clip = of_task(family, task, None, [])
    assert np.ptp(clip.states[:, 1:], axis=0).max() < 1e-3


def test_a_window_shows_text_of_files_in_lines_of_its_own():
    from demokit.view.window import Window

    window = Window.__new__(Window)
    window._talker = threading.current_thread()
    window.say([("task", "a\nb"), ("by", "\u202ec")])
    assert window._words == ("task\nby", "a\\nb\n\\u202ec")
    window.say([])
    assert window._words == ("", "")


def test_without_a_display(monkeypatch):
    from demokit.view.window import Window

    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DemokitError, match="no display"):
        Window(make_family("point"))


@pytest.mark.skipif(chromium() is None, reason="needs a browser: apt install chromium")
@pytest.mark.realtime
@pytest.mark.parametrize("what", ["replay", "envs"])
def test_the_page_is_driven_from_a_browser(what, tmp_path):
    path = tmp_path / "a.hdf5"
    arguments = [str(path)] if what == "replay" else ["door"]
    if what == "replay":
        recording = Program("record", "--env", "door", "--num-episodes", 2, "--out", path)
        assert recording.end() == 0
        recording.close()
    seen = Program(what, *arguments, "--view", "web")
    browser = None
    try:
        seen.wait_for("Open http")
        address = re.search(r"Open (http://127\.0\.0\.1:\d+/)", seen.text).group(1)
        browser = Browser(tmp_path / "profile", address)
        if what == "replay":
            browser.wait_to_drive()
            browser.evaluate("window.prompt = (question) => question && 'my/door'")
            browser.push("rename task")
            browser.wait_for("document.getElementById('words').innerText.includes('my/door')")
            browser.push("drop")
            browser.wait_for("document.getElementById('words').innerText.includes('not saved')")
            browser.push("save")
            browser.wait_for("document.getElementById('words').innerText.includes('saved: 1 ep')")
            (left,) = open_dataset(tmp_path / "a-edited.hdf5").episodes
            assert left.task.id != "my/door"
            browser.push("undo")
            browser.wait_for("document.getElementById('words').innerText.includes('not saved')")
        browser.hold("q", seen, "\n.*replay from")
        assert seen.end() == 0, seen.text
        if what == "replay":
            assert "2 of 2 episodes replay from their states" in seen.text
            assert re.search(r"not saved; this saves it: demokit filter \S+a.hdf5 --out", seen.text)
            assert len(open_dataset(path)) == 2
    finally:
        seen.close()
        if browser is not None:
            browser.close()
