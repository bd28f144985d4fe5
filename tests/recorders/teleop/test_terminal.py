"""The terminal as a device: what is typed, latched motion, and the real program in a terminal."""

import os
import pty
import select
import signal
import termios

import numpy as np
import pytest
from click.testing import CliRunner
from program import Program

from demokit.cli import main
from demokit.data import open_dataset
from demokit.errors import DemokitError
from recorders.teleop.desk import Desk
from recorders.teleop.device import Command, DeviceLost, Press
from recorders.teleop.keys import LatchedKeys, load_bindings
from recorders.teleop.terminal import Terminal, split_keys


@pytest.fixture
def terminal():
    outside, inside = pty.openpty()
    before = termios.tcgetattr(inside)
    device = Terminal(load_bindings(), inside)
    yield device, lambda text: os.write(outside, text.encode())
    device.close()
    device.close()
    assert termios.tcgetattr(inside) == before
    os.close(outside)
    os.close(inside)


@pytest.fixture
def program():
    started = []

    def start(*arguments):
        started.append(Program(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_arrows_are_one_key_even_when_they_come_in_parts():
    assert split_keys("\x1b[A\x1bOD w", ended=False) == (["up", "left", "space", "w"], "")
    assert split_keys("\x1b[", ended=False) == ([], "\x1b[")
    assert split_keys("\x1b[5~", ended=False) == (["page_up"], "")
    assert split_keys("\x1b", ended=False) == ([], "\x1b")
    assert split_keys("\x1b", ended=True) == (["esc"], "")
    assert split_keys("\x1b\x1b", ended=True) == (["esc", "esc"], "")


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        ("\x1b[1;2A", ["shift+up"]),
        ("\x1b[1;5D", ["ctrl+left"]),
        ("\x1b[1;3C", ["right"]),  # Alt
        ("\x1b\x1b[B", ["down"]),  # Alt, elsewhere
        ("\x1b[5;5~", ["ctrl+page_up"]),
        ("\x1b[H", ["home"]),
        ("\x1b[1~", ["home"]),
        ("\x1bOF", ["end"]),
        ("\x1b[4~", ["end"]),
        ("\x1bOP", []),  # F1
        ("\x1b[[A", []),  # F1, of Linux' console
        ("\x1b[15~", []),  # F5
        ("\x1b[1;2P", []),  # Shift and F1
        ("\x1b[I", []),  # the window has the focus
        ("\x1b[<35;1;1M", []),  # the mouse
        ("\x1b[200~", []),
        ("\x1b[\x1b[A", ["up"]),
        ("\x1bq", []),  # Alt and Q
        ("+", ["+"]),
    ],
)
def test_sequences_are_one_key_or_none(typed, keys):
    assert split_keys(f"{typed}w", ended=False) == ([*keys, "w"], "")
    found, pending = [], ""
    for character in typed:
        more, pending = split_keys(pending + character, ended=False)
        found += more
    assert found + split_keys(pending, ended=True)[0] == keys


def test_keys_without_a_meaning_do_not_quit(terminal):
    device, write = terminal
    write("\x1b[1~\x1b[F\x1bOP\x1b[15~\x1b[24;2~\x1bq\x1b[3" * 3)
    for _ in range(3):
        assert device.read() == Command()
    write("~n")
    assert device.read().presses == (Press.DISCARD, Press.KEEP)


def test_arrows_go_finely_with_shift_and_fast_with_ctrl(terminal):
    device, write = terminal
    write("\x1b[1;2A")
    assert device.read().move == pytest.approx((0, 0.2, 0))
    write("\x1b[1;5C")
    assert device.read().move == pytest.approx((1.0, 1.0, 0))
    write("\x1b[1;5D\x1b[A")
    assert device.read().move == pytest.approx((0, 0.7, 0))


def test_motion_goes_on_until_it_is_stopped(terminal):
    device, write = terminal
    write("w")
    assert device.read().move == pytest.approx((0, 0.7, 0))
    assert device.read().move == pytest.approx((0, 0.7, 0))
    write("d")
    assert device.read().move == pytest.approx((0.7, 0.7, 0))
    write("s")
    assert device.read().move == pytest.approx((0.7, 0, 0))
    write("s")
    assert device.read().move == pytest.approx((0.7, -0.7, 0))
    write("v")
    command = device.read()
    assert command.move == (0, 0, 0)
    assert command.presses == (Press.STOP,)


def test_speeds_switch_and_capitals_are_fine():
    keys = LatchedKeys(load_bindings())
    keys.type("W")
    assert keys.command().move == pytest.approx((0, 0.2, 0))
    keys.type("f")
    keys.type("w")
    assert keys.command().move == pytest.approx((0, 1.0, 0))
    keys.type("f")
    assert keys.command().move == pytest.approx((0, 0.7, 0))
    keys.clear()
    assert keys.command().move == (0, 0, 0)


def test_an_escape_key_is_told_from_an_arrow(terminal):
    device, write = terminal
    write("\x1b")
    assert device.read().presses == ()
    assert device.read().presses == (Press.QUIT,)
    write("\x1b[")
    device.read()
    write("B")
    assert device.read().move == pytest.approx((0, -0.7, 0))


def test_keys_arrive_again_after_the_shell_had_the_terminal():
    outside, inside = pty.openpty()
    shell = termios.tcgetattr(inside)
    device = Terminal(load_bindings(), inside)
    termios.tcsetattr(inside, termios.TCSANOW, shell)
    device.read()
    os.write(outside, b"w")
    assert device.read().move == pytest.approx((0, 0.7, 0))
    device.close()
    assert termios.tcgetattr(inside) == shell
    with pytest.raises(DeviceLost):
        device.read()
    os.close(outside)
    os.close(inside)


def test_a_closed_terminal_is_a_lost_device():
    outside, inside = pty.openpty()
    device = Terminal(load_bindings(), inside)
    os.close(outside)
    with pytest.raises(DeviceLost):
        device.read()
    device.close()
    os.close(inside)


def test_bindings_of_ones_own(tmp_path):
    path = tmp_path / "keys.toml"
    path.write_text('[hold]\nforward = ["i"]\n[press]\nkeep = ["k"]\n')
    bindings = load_bindings(path)
    assert bindings.hold["i"] == "forward"
    assert "w" not in bindings.hold
    assert bindings.keys("keep") == ("k",)
    assert bindings.keys("back") == ("s", "down")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[press]\nkeep = ["w"]', "bound twice"),
        ("[gamepad]\nkeep = 0", "gamepad's button 0 is bound twice"),
        ("[gamepad]\nup_down = 1", "gamepad's axis 1 is bound twice"),
        ("[hold]\nforward = 3", "lists of keys"),
        ('[hold]\nforwards = ["i"]', "did you mean 'forward'"),
        ("[speed]\nfine = 3", "at most 1"),
        ("[speeds]", "did you mean 'speed'"),
        ("hold = 1", "must be a table"),
        ('[hold]\nforward = ["page_upp"]', "key for 'forward' 'page_upp': did you mean 'page_up'"),
        ('[press]\nkeep = ["W"]', "Unknown key for 'keep' 'W'"),
        ('[gamepad]\nkeep = "a"', "must be the number of a button"),
        ("[gamepad]\ndead_zone = 1.0", "must be a share below 1"),
        ("[[", "cannot be read"),
    ],
)
def test_wrong_bindings_are_one_sentence(text, problem, tmp_path):
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(DemokitError, match=problem):
        load_bindings(path)


def test_it_needs_a_terminal(tmp_path):
    arguments = ["record", "--env", "door", "--device", "terminal", "--out", tmp_path / "a.hdf5"]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 1
    assert "needs a terminal" in result.output
    assert list(tmp_path.iterdir()) == []


def replays(path, count):
    with open_dataset(path) as dataset:
        assert len(dataset) == count
    result = CliRunner().invoke(main, ["validate", "--replay", str(path)])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(main, ["replay", "--use-actions", str(path)])
    assert result.exit_code == 0, result.output


def by_hand(path, *more):
    return (
        *("record", "--env", "door", "--device", "terminal", "--view", "none"),
        *("--tasks", 2, "--num-episodes", 5, "--countdown", 0.1, "--license", "MIT"),
        *("--out", path, *more),
    )


@pytest.mark.realtime
def test_the_program_in_a_terminal(program, tmp_path):
    path = tmp_path / "hand.hdf5"
    hand = program(*by_hand(path))
    hand.wait_for("Device terminal: you asked for it")
    hand.wait_for("begins when you move")
    hand.type("w\x1b[C")
    hand.wait_for("step 1[0-9]/100")
    hand.type("n")
    hand.wait_for("recording  kept 1/5")
    hand.type("a")
    hand.wait_for("step [5-9]/100")
    hand.type("x")
    hand.wait_for("dropped")
    hand.wait_for("recording  kept 1/5")
    hand.type("q")
    hand.wait_for("keep this part|kept 1/5")
    hand.type("q")
    assert hand.end() == 0, hand.text
    assert "go on with: demokit record" in hand.text
    assert hand.modes() == hand.before
    replays(path, 1)
    with open_dataset(path) as dataset:
        moved = np.ptp(dataset[0].privileged["hand_pos_w_m"], axis=0)
        assert moved[0] > 0.02
        assert moved[1] > 0.02
        assert dataset[0].options["device"] == "terminal"


def begun(hand):
    """The first episode is in progress."""
    hand.wait_for("begins when you move")
    hand.type("v")
    hand.wait_for("step [1-9]")


def kept_one(hand):
    """One episode is kept, and the next one is in progress."""
    begun(hand)
    hand.type("n")
    hand.wait_for("recording  kept 1/5")
    hand.wait_for("step [1-9]")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.realtime
def test_signals_keep_what_is_kept_and_restore_the_terminal(number, program, tmp_path):
    path = tmp_path / "hand.hdf5"
    hand = program(*by_hand(path))
    kept_one(hand)
    hand.send(number)
    hand.wait_for("keep this part")
    hand.send(number)
    assert hand.end() == 0, hand.text
    assert hand.modes() == hand.before
    replays(path, 1)


@pytest.mark.realtime
def test_what_a_signal_interrupts_can_be_kept(program, tmp_path):
    path = tmp_path / "hand.hdf5"
    hand = program(*by_hand(path))
    kept_one(hand)
    hand.send(signal.SIGTERM)
    hand.wait_for("keep this part.*within 30 s, else it is dropped")
    hand.type("n")
    assert hand.end() == 0, hand.text
    assert hand.modes() == hand.before
    replays(path, 2)
    with open_dataset(path) as dataset:
        assert dataset[1].options["ended_by"] == "interrupted"
        assert dataset[1].truncations[-1]


@pytest.mark.realtime
def test_a_terminal_that_is_gone_ends_it(program, tmp_path):
    path = tmp_path / "hand.hdf5"
    hand = program(*by_hand(path, "--keep-partial"))
    kept_one(hand)
    hand.hang_up()
    hand.process.wait(60)
    replays(path, 2)


@pytest.mark.realtime
def test_a_kill_loses_nothing_that_was_kept(program, tmp_path):
    path = tmp_path / "hand.hdf5"
    hand = program(*by_hand(path))
    begun(hand)
    hand.type("n")
    hand.wait_for("recording  kept 1/5")
    hand.send(signal.SIGKILL)
    hand.end()
    more = program(*by_hand(path, "--resume"))
    begun(more)
    more.type("n")
    more.wait_for("recording  kept 2/5")
    more.type("qq")
    assert more.end() == 0, more.text
    replays(path, 2)


def test_the_terminal_answers_for_other_devices_and_is_given_back():
    outside, inside = pty.openpty()
    before = termios.tcgetattr(inside)
    desk = Desk(load_bindings(), inside)
    os.write(outside, b"n\n")
    assert select.select([inside], [], [], 10)[0], "what is typed arrives"
    assert termios.tcgetattr(inside) == before
    # What was typed before the question is no answer to it.
    assert desk.read() == Command()
    assert termios.tcgetattr(inside) != before
    os.write(outside, b"x")
    assert desk.read().presses == (Press.DISCARD,)
    desk.rest()
    assert termios.tcgetattr(inside) == before
    assert desk.read() == Command()
    desk.close()
    assert termios.tcgetattr(inside) == before
    with pytest.raises(DeviceLost):
        desk.read()
    os.close(outside)
    os.close(inside)


def test_nobody_answers_where_there_is_no_terminal(tmp_path):
    with (tmp_path / "file").open("w") as file, pytest.raises(DeviceLost):
        Desk(load_bindings(), file.fileno()).read()


@pytest.mark.realtime
def test_quitting_leaves_what_was_to_be_replaced(program, tmp_path, invoke):
    path = tmp_path / "hand.hdf5"
    invoke("record", "--env", "door", "--tasks", 2, "--num-episodes", 3, "--out", path)
    before = path.read_bytes()
    hand = program(*by_hand(path, "--overwrite"))
    kept_one(hand)
    hand.type("qq")
    assert hand.end() == 1, hand.text
    assert "1 of 5 episodes are saved beside" in hand.text
    assert path.read_bytes() == before
    more = program(*by_hand(path, "--resume"))
    begun(more)
    more.type("qq")
    assert more.end() == 1, more.text
    assert path.read_bytes() == before
    last = program(*by_hand(path, "--resume", "--num-episodes", 1))
    assert last.end() == 0, last.text
    replays(path, 1)
