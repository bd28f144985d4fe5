"""The keyboard as a device: the real program, the real window, keys that are really pressed."""

import os
import signal
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("Xlib", reason="needs pynput")
from program import Program
from test_terminal import replays
from Xlib import X
from Xlib.display import Display
from Xlib.protocol.event import ClientMessage

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

    def close_window(self):
        """As the cross in its corner does, which a window manager would draw."""
        words = ("xdotool", "search", "--name", "MuJoCo : ")
        number = int(subprocess.check_output(words, env=self.environment))
        connection = Display(self.environment["DISPLAY"])
        window = connection.create_resource_object("window", number)
        protocols, delete = map(connection.intern_atom, ("WM_PROTOCOLS", "WM_DELETE_WINDOW"))
        message = ClientMessage(
            window=window, client_type=protocols, data=(32, (delete, 0, 0, 0, 0))
        )
        window.send_event(message)
        connection.sync()  # the server forgets what it has not read of a client that is gone
        connection.close()

    @contextmanager
    def another_window(self):
        """A window of someone else's that has the focus; the viewer has it afterwards."""
        connection = Display(self.environment["DISPLAY"])
        window = connection.screen().root.create_window(0, 0, 300, 200, 0, X.CopyFromParent)
        window.set_wm_name("a letter")
        window.map()
        connection.sync()
        self.do("windowfocus", "--sync", window.id)
        yield
        connection.close()
        self.do("search", "--name", "MuJoCo : ", "windowfocus", "--sync")

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
    hand = program(*by_hand(path, "--device", "auto", "--rate", 6))
    hand.wait_for("Device keyboard: a display is there.*View window")
    hand.wait_for("begins when you move")
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


def begun(desk, hand):
    """The first episode is in progress."""
    hand.wait_for("begins when you move")
    desk.hold(["v"], hand, "step [1-9]")


def keeps_one(desk, hand):
    """One episode is kept, and the next one is in progress."""
    begun(desk, hand)
    desk.do("key", "n")
    hand.wait_for("recording  kept 1/5")
    hand.wait_for("step [1-9]")


@pytest.mark.realtime
def test_what_is_meant_for_another_window_moves_nothing(desk, program, tmp_path):
    path = tmp_path / "hand.hdf5"
    hand = program(*by_hand(path, "--device", "mouse", "--rate", 12))
    begun(desk, hand)
    with desk.another_window():
        hand.wait_for("step 1[0-9]/100")
        desk.do("mousemove", 100, 100, "mousedown", 2, "mousemove", 160, 40, "click", 4)
        desk.hold(["w"], hand, "step [2-3][0-9]/100")
    hand.wait_for("step [4-6][0-9]/100")
    desk.do("mouseup", 2, "key", "n")
    hand.wait_for("recording  kept 1/5")
    desk.do("mousemove", 100, 100, "mousedown", 2, "mousemove", 160, 40, "mouseup", 2)
    hand.wait_for("step [2-4][0-9]/100")
    desk.do("key", "q")
    hand.wait_for("keep this part")
    desk.do("key", "n")
    assert hand.end() == 0, hand.text
    with open_dataset(path) as dataset:
        assert not np.any(dataset[0].actions)
        assert np.any(dataset[1].actions)


@pytest.mark.realtime
def test_a_key_is_the_same_one_with_shift(desk, program, tmp_path):
    path, keys = tmp_path / "hand.hdf5", tmp_path / "keys.toml"
    keys.write_text('[hold]\nforward = ["1"]\nback = ["2"]\n')
    hand = program(*by_hand(path, "--device", "keyboard", "--rate", 12, "--bindings", keys))
    begun(desk, hand)
    desk.do("keydown", 1)
    hand.wait_for("step 1[0-9]/100")
    desk.do("keydown", "shift", "keyup", 1, "keyup", "shift")
    hand.wait_for("step 3[0-9]/100")
    desk.do("keydown", "shift", "keydown", 2)
    hand.wait_for("step 5[0-9]/100")
    desk.do("keyup", "shift", "keyup", 2)
    hand.wait_for("step 7[0-9]/100")
    desk.do("key", "n")
    hand.wait_for("recording  kept 1/5")
    desk.do("key", "q")
    hand.wait_for("keep this part|1 of 5")
    desk.do("key", "q")
    assert hand.end() == 0, hand.text
    with open_dataset(path) as dataset:
        forward = dataset[0].actions[:, 1]
        assert np.isclose(forward, 0.7).sum() > 3
        assert np.isclose(forward, -0.2).sum() > 3
        assert not forward[25:30].any()
        assert not forward[-5:].any()


@pytest.mark.realtime
def test_a_closed_window_offers_the_episode_at_the_terminal(desk, program, tmp_path):
    path = tmp_path / "hand.hdf5"
    hand = program(*by_hand(path, "--device", "keyboard"))
    keeps_one(desk, hand)
    desk.close_window()
    hand.wait_for("keep this part.*within 30 s")
    hand.type("n")
    assert hand.end() == 0, hand.text
    assert hand.modes() == hand.before
    replays(path, 2)
    with open_dataset(path) as dataset:
        assert dataset[1].options["ended_by"] == "interrupted"


@pytest.mark.realtime
def test_a_killed_viewer_gives_the_terminal_back(desk, program, tmp_path):
    path = tmp_path / "hand.hdf5"
    hand = program(*by_hand(path, "--device", "terminal", "--view", "window"))
    hand.wait_for("begins when you move")
    hand.type("v")
    hand.wait_for("step [1-9]")
    hand.type("n")
    hand.wait_for("recording  kept 1/5")
    desk.do("search", "--name", "MuJoCo : ", "windowkill")
    assert hand.end() != 0
    assert "go on with --resume" in hand.text
    assert hand.modes() == hand.before


@pytest.mark.parametrize("how", ["the viewer", "the program"])
@pytest.mark.realtime
def test_what_was_kept_outlives_a_kill(how, desk, program, tmp_path):
    path = tmp_path / "hand.hdf5"
    hand = program(*by_hand(path, "--device", "keyboard"))
    keeps_one(desk, hand)
    if how == "the viewer":
        desk.do("search", "--name", "MuJoCo : ", "windowkill")
    else:
        hand.send(signal.SIGKILL)
    # X takes the program down with the window: what was kept waits for --resume.
    assert hand.end() != 0
    assert hand.modes() == hand.before
    more = program(*by_hand(path, "--device", "keyboard", "--resume"))
    more.wait_for("begins when you move  kept 1/5")
    desk.do("key", "q")
    more.wait_for("keep this part|1 of 5")
    desk.do("key", "q")
    assert more.end() == 0, more.text
    replays(path, 1)
