"""The browser as a device: the real page in a real browser, however late its frames are."""

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from browser import Browser, chromium, patient
from program import Program
from test_terminal import replays

from demokit.data import open_dataset
from demokit.envs import make_family
from recorders.teleop.device import DeviceLost, Press
from recorders.teleop.keys import NAMED_KEYS, PLAIN_KEYS, load_bindings
from recorders.teleop.web import WebRoom

PERIOD_S = 0.02
NO_FRAMES = "Module.pauseMainLoop()"
LET_GO = "window.dispatchEvent(new Event('blur'))"
needs_browser = pytest.mark.skipif(
    chromium() is None, reason="needs a browser: apt install chromium"
)


@pytest.fixture(scope="module")
def room():
    room = WebRoom(make_family("door"), load_bindings(), "127.0.0.1", 0, gripper=False, expert=True)
    yield room
    room.close()


@pytest.fixture(scope="module")
def browsers():
    """The one that is open, if any: a page takes long to load, and serves several tests."""
    found = []
    yield found
    close_all(found)


def close_all(browsers):
    while browsers:
        browsers.pop().close()


def drive_without_frames(room, browser):
    """Let a page load, and draw no more: all that follows must do without."""
    browser.wait_to_drive()
    browser.evaluate(NO_FRAMES)
    room.read()


@pytest.fixture
def person(room, browsers, tmp_path):
    """Somebody at a page, with hands off."""
    try:
        if not browsers:
            browsers.append(Browser(tmp_path / "profile", room.page.address))
            drive_without_frames(room, browsers[0])
        yield browsers[0]
        if browsers:
            browsers[0].evaluate(LET_GO)
            read_until(room, rests)
    except BaseException:  # the next test has a page of its own
        close_all(browsers)
        raise


@pytest.fixture
def phone(room, browsers, tmp_path):
    """Somebody at a phone."""
    close_all(browsers)
    browser = Browser(tmp_path / "profile", "about:blank")
    try:
        browser.be_a_phone()
        browser.do("Page.navigate", url=room.page.address)
        drive_without_frames(room, browser)
        yield browser
    finally:
        browser.close()


def read_until(room, wanted):
    """Commands, read at a control rate, up to the first that is as wanted."""
    commands = []

    def read():
        time.sleep(PERIOD_S)
        commands.append(room.read())
        return wanted(commands[-1])

    patient(read, "what was wanted of the commands")
    return commands


def moves(command):
    return any(command.move)


def rests(command):
    return not any(command.move)


@needs_browser
def test_a_held_key_moves_until_it_is_up(room, person):
    person.press("w")
    forward = read_until(room, moves)[-1].move
    assert forward[1] > 0.5
    assert {room.read().move for _ in range(100)} == {forward}
    person.press("d")
    assert read_until(room, lambda c: c.move[0] > 0)[-1].move[1] == forward[1]
    person.release("w")
    read_until(room, lambda c: c.move[1] == 0)
    assert room.read().move[0] > 0
    person.release("d")
    read_until(room, rests)


@needs_browser
def test_a_tap_is_an_action_and_each_press_counts_once(room, person):
    person.tap("w")
    assert len(read_until(room, moves)) >= 1
    read_until(room, rests)
    for _ in range(3):
        person.tap("p")
    presses = []
    while len(presses) < 3:
        presses += read_until(room, lambda c: c.presses)[-1].presses
    assert presses == [Press.PAUSE] * 3
    person.push("discard")
    assert read_until(room, lambda c: c.presses)[-1].presses == (Press.DISCARD,)


@needs_browser
def test_keys_that_come_while_the_page_is_busy_are_not_lost(room, person):
    """The page computes while the key goes down and up: it hears of both afterwards."""
    person.send(
        "Runtime.evaluate", expression="for (const t = Date.now(); Date.now() - t < 1000;);"
    )
    person.tap("w")
    read_until(room, moves)
    read_until(room, rests)


@needs_browser
@pytest.mark.parametrize("away", ["another tab", "another window"])
def test_a_page_that_is_left_lets_go(room, person, away):
    person.press("w")
    read_until(room, moves)
    if away == "another tab":
        tab = person.do("Target.createTarget", url="about:blank")
        read_until(room, rests)
        person.do("Target.closeTarget", **tab)
        person.wait_for("!document.hidden")
    else:
        person.evaluate(LET_GO)
        read_until(room, rests)
    person.release("w")


@needs_browser
def test_every_key_that_can_be_bound_is_heard(room, person):
    """As a keyboard sends them, by what the page calls them."""
    names = {
        **{key: key for key in PLAIN_KEYS},
        **{f"Arrow{way.title()}": way for way in ("up", "down", "left", "right")},
        "PageUp": "page_up",
        "PageDown": "page_down",
        " ": "space",
        "Escape": "esc",
        **{key.title(): key for key in ("home", "end", "insert", "delete", "backspace", "enter")},
        "Tab": "tab",
        "Shift": "shift",
        "Control": "ctrl",
        "Alt": "alt",
        # Shifted, and on a keyboard with other letters.
        "W": "w",
        "@:Digit2": "2",
        "ц:KeyW": "w",
    }
    assert set(names.values()) == {*NAMED_KEYS, *PLAIN_KEYS}
    heard = []
    panel = room.page._panel
    keys, panel._keys = panel._keys, frozenset(names.values())
    hands, panel._hands = panel._hands, type("", (), {"press": heard.append, "release": str})
    try:
        room.page.say([("", "other keys")])
        person.wait_for("document.getElementById('words').innerText.includes('other keys')")
        for key, name in names.items():
            letter, _, place = key.partition(":")
            for kind in ("rawKeyDown", "keyUp"):
                person.do("Input.dispatchKeyEvent", type=kind, key=letter, code=place or name)
            patient(lambda: heard, key)
            assert heard == [name], key
            heard.clear()
    finally:
        panel._keys, panel._hands = keys, hands


@needs_browser
def test_a_page_that_dies_lets_go(room, person, browsers):
    person.press("w")
    read_until(room, moves)
    close_all(browsers)
    with pytest.raises(DeviceLost):
        read_until(room, rests)
    with pytest.raises(DeviceLost):
        room.read()


@needs_browser
def test_fingers_hold_buttons_as_keys(room, phone):
    phone.touch("forward", "fine", place="#pad")
    # The page may have heard of one finger alone.
    forward = read_until(room, lambda c: 0 < c.move[1] < 0.5)[-1].move
    assert {room.read().move for _ in range(100)} == {forward}
    phone.lift()
    read_until(room, rests)
    phone.touch("discard")
    phone.lift()
    assert read_until(room, lambda c: c.presses)[-1].presses == (Press.DISCARD,)


@contextlib.contextmanager
def busy_machine():
    """Every core has two more things to do."""
    cores = int(subprocess.check_output([shutil.which("nproc")]))
    crowd = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * cores)]
    try:
        yield
    finally:
        for each in crowd:
            each.kill()
            each.wait()


@needs_browser
@pytest.mark.realtime
def test_a_door_is_opened_by_buttons_on_a_phone(tmp_path):
    path = tmp_path / "hand.hdf5"
    hand = Program(
        *("record", "--env", "door", "--device", "web", "--tasks", 1, "--num-episodes", 1),
        *("--rate", 4, "--license", "MIT", "--out", path),
    )
    browser = None
    try:
        hand.wait_for("No browser is there")
        address = re.search(r"Open (http://127\.0\.0\.1:\d+/)", hand.text).group(1)
        browser = Browser(tmp_path / "profile", address)
        browser.be_a_phone(dark=True)
        browser.wait_to_drive()
        browser.wait_for("document.title === 'door - demokit'")
        assert "begins when you move" in browser.text()
        assert browser.evaluate("document.documentElement.scrollWidth") == 390
        browser.evaluate(NO_FRAMES)  # software draws so slowly that fingers come too late
        # Over the handle, forward to it, down into the slot, and pull.
        for way, step in (("up", 14), ("forward", 56), ("down", 64), ("back", 85)):
            browser.touch(way, "fast", place="#pad")
            hand.wait_for(f"step {step}/100")
            browser.lift()
        browser.touch("keep")
        browser.lift()
        assert hand.end() == 0, hand.text
    finally:
        hand.close()
        if browser is not None:
            browser.close()
    replays(path, 1)
    with open_dataset(path) as dataset:
        assert dataset[0].privileged["door_angle_rad"][-1, 0] > 0.2
        assert not dataset[0].privileged["by_expert"].any()
        assert np.any(dataset[0].actions[0])  # the first touch is the first step


@needs_browser
@pytest.mark.realtime
@pytest.mark.parametrize("machine", [contextlib.nullcontext, busy_machine])
def test_the_program_in_a_browser(machine, tmp_path):
    path = tmp_path / "hand.hdf5"
    words = (
        *("record", "--env", "door", "--device", "web", "--tasks", 1, "--num-episodes", 5),
        *("--rate", 10, "--countdown", 0.2, "--license", "MIT", "--out", path),
    )
    hand = Program(*words)
    browser = None
    try:
        hand.wait_for("No browser is there")
        address = re.search(r"Open (http://127\.0\.0\.1:\d+/)", hand.text).group(1)
        browser = Browser(tmp_path / "profile", address)
        browser.wait_to_drive()
        with machine():
            browser.press("w")
            hand.wait_for("recording")
            hand.wait_for("step [2-9][0-9]/")
            browser.hold("n", hand, "recording  kept 1/5")
            browser.release("w")
            browser.push("discard")
            hand.wait_for("dropped")
            hand.wait_for("step [1-9]")
        browser.close()
        hand.wait_for("No browser is there.*or answer here.*paused")
        hand.type("n")
        hand.wait_for("kept 2/5")
        hand.send(signal.SIGKILL)
        hand.end()
        # Nothing is in progress: it ends without a question.
        hand = Program(*words, "--resume")
        hand.wait_for("No browser is there.*kept 2/5")
        hand.send(signal.SIGTERM)
        assert hand.end() == 0, hand.text
    finally:
        hand.close()
        if browser is not None:
            browser.close()
    replays(path, 2)
    with open_dataset(path) as dataset:
        # The key was down before the first step, and up after the last.
        assert (dataset[0].actions[:, 1] > 0.5).all()
        assert dataset[0].options["device"] == dataset[0].options["view"] == "web"
