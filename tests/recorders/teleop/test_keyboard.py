"""The keyboard as a device: the real program, the real window, keys that are really pressed."""

import os
import subprocess

import pytest
from program import Program
from test_terminal import replays

from demokit.data import open_dataset


class Desk:
    """A person's hands at a display."""

    def __init__(self, display):
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "DISPLAY": display,
            "WAYLAND_DISPLAY": "",
            "XDG_SESSION_TYPE": "x11",
            "SSH_CONNECTION": "",
            "SSH_TTY": "",
        }

    def do(self, *words):
        subprocess.run(["xdotool", *map(str, words)], env=self.environment, check=True)

    def hold(self, keys, program, until):
        for key in keys:
            self.do("keydown", key)
        program.wait_for(until)
        for key in keys:
            self.do("keyup", key)


@pytest.fixture
def desk(display):
    return Desk(display)


@pytest.fixture
def program(desk):
    started = []

    def start(*arguments):
        started.append(Program(*arguments, environment=desk.environment))
        return started[-1]

    yield start
    for each in started:
        each.close()


def by_hand(path, *more):
    return (
        *("record", "--env", "door", "--tasks", 1, "--num-episodes", 5, "--countdown", 0.2),
        *("--license", "MIT", "--out", path, *more),
    )


@pytest.mark.realtime
def test_the_door_is_opened_with_real_keys(desk, program, tmp_path):
    path = tmp_path / "hand.hdf5"
    hand = program(*by_hand(path, "--device", "auto", "--rate", 12))
    hand.wait_for("Device keyboard: a display is there.*View window")
    hand.wait_for("recording")
    # Over the handle, forward to it, down into the slot, and pull.
    for key, step in (("e", 14), ("w", 56), ("c", 64), ("s", 85)):
        desk.hold(["ctrl", key], hand, f"step {step}/100")
    desk.do("key", "n")
    hand.wait_for("recording  kept 1/5")
    desk.hold(["s"], hand, "step [5-9]/100")
    desk.do("key", "x")
    hand.wait_for("dropped")
    hand.wait_for("recording  kept 1/5")
    desk.do("key", "p")
    hand.wait_for("paused")
    desk.do("key", "q")
    hand.wait_for("keep this part|1 of 5")
    desk.do("key", "q")
    assert hand.end() == 0, hand.text
    replays(path, 1)
    with open_dataset(path) as dataset:
        episode = dataset[0]
        assert episode.privileged["door_angle_rad"][-1, 0] > 0.2
        assert episode.options["device"] == "keyboard"
        assert episode.options["view"] == "window"


@pytest.mark.realtime
def test_a_closed_window_loses_nothing(desk, program, tmp_path):
    path = tmp_path / "hand.hdf5"
    hand = program(*by_hand(path, "--device", "keyboard"))
    hand.wait_for("step [1-9]")
    desk.do("key", "n")
    hand.wait_for("recording  kept 1/5")
    desk.do("search", "--name", "MuJoCo : ", "windowclose")
    hand.end()
    # The viewer may take the program with it: then what was kept waits for --resume.
    if not path.exists():
        more = program(*by_hand(path, "--device", "keyboard", "--resume"))
        more.wait_for("recording  kept 1/5")
        desk.do("key", "q")
        more.wait_for("keep this part|1 of 5")
        desk.do("key", "q")
        assert more.end() == 0, more.text
    replays(path, 1)
