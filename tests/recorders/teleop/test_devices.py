"""Gamepad and mouse, without either; and which device and view are chosen where."""

from types import SimpleNamespace

import pytest

from demokit.errors import DemokitError
from recorders.teleop import command
from recorders.teleop.detect import Choice, Surroundings, choose_device, choose_view
from recorders.teleop.device import Command, DeviceLost, Press
from recorders.teleop.gamepad import Gamepad
from recorders.teleop.keys import load_bindings
from recorders.teleop.mouse import Mouse


class Pads:
    """Gamepads, in place of `pygame.joystick`; all with the same sticks and buttons."""

    def __init__(self, *ids):
        self.ids, self.gone = list(ids), []
        self.axes, self.buttons = [0.0] * 6, [0] * 10

    def get_count(self):
        return len(self.ids)

    def unplug(self, number):
        self.ids.remove(number)
        self.gone.append(number)

    def refresh(self):
        gone, self.gone = self.gone, []
        return gone

    def Joystick(self, at):  # noqa: N802
        number = self.ids[at]
        return SimpleNamespace(
            get_instance_id=lambda: number,
            get_numaxes=lambda: len(self.axes),
            get_numbuttons=lambda: len(self.buttons),
            get_axis=lambda n: self.axes[n],
            get_button=lambda n: self.buttons[n],
        )

    def quit(self):
        pass


def test_sticks_move_in_proportion_and_buttons_press_once():
    pads = Pads(0)
    pad = Gamepad(load_bindings(), pads, pads.refresh)
    pads.axes[:2] = [0.1, -1.0]
    pads.buttons[7] = 1
    assert pad.read() == Command((0.0, 1.0, 0.0), (Press.KEEP,))
    assert pad.read().presses == ()
    pads.axes[:5] = [0.575, 0, 0, 0, 1.0]
    assert pad.read().move == pytest.approx((0.5, 0, -1.0))


def test_an_unplugged_gamepad_is_lost_and_found():
    pads = Pads(0)
    pad = Gamepad(load_bindings(), pads, pads.refresh)
    pads.unplug(0)
    for _ in range(2):
        with pytest.raises(DeviceLost, match="plug it in"):
            pad.read()
    pads.ids.append(1)
    assert pad.read() == Command()
    pads.unplug(1)
    pads.ids.append(2)  # at once
    assert pad.read() == Command()
    with pytest.raises(DemokitError, match="no gamepad"):
        Gamepad(load_bindings(), Pads(), pads.refresh)


def test_another_gamepad_does_not_hide_that_ours_is_unplugged():
    pads = Pads(0, 1)
    pad = Gamepad(load_bindings(), pads, pads.refresh)
    pads.axes[0] = 1.0
    assert pad.read().move[0] == 1.0
    pads.unplug(0)
    for _ in range(2):
        with pytest.raises(DeviceLost, match="plug it in"):
            pad.read()
    pads.ids.insert(0, 2)
    assert pad.read().move[0] == 1.0
    pads.unplug(1)
    assert pad.read().move[0] == 1.0


def test_a_gamepads_buttons_are_told(tmp_path, capsys):
    path = tmp_path / "keys.toml"
    path.write_text("[gamepad]\nrerecord = 9\nup_down = 5\n")
    bindings = load_bindings(path)
    source = SimpleNamespace(has_expert=False, has_gripper=True)
    command._tell(Choice("gamepad", ""), Choice("web", ""), source, bindings, 20.0)
    assert (
        "Buttons, as an Xbox pad calls them: left stick left and right; left stick forward and "
        "back; axis 5 up and down; A close or open the gripper; start end the episode and keep "
        "it; button 9 drop it, the same start again; B drop it, on to the next task; back pause, "
        "go on; guide quit; asks about the episode.\n"
    ) in capsys.readouterr().err
    asked = command._verdict_keys(bindings, "gamepad")
    assert asked == "start keep, button 9 rerecord, B discard, guide quit"
    asked = command._verdict_keys(bindings, "keyboard")
    assert asked == "n keep, r rerecord, x discard, q quit"


def test_dragging_moves_in_the_plane_and_the_wheel_up():
    keys = SimpleNamespace(read=lambda: Command((0, 0, 0.2), (Press.KEEP,)), rest=lambda: None)
    mouse = Mouse(keys, lambda **_: SimpleNamespace(start=lambda: None))
    middle = SimpleNamespace(name="middle")
    mouse.moved(0, 0)
    mouse.clicked(100, 100, middle, True)
    mouse.moved(106, 76)
    assert mouse.read() == Command((0.5, 1.0, 0.2), (Press.KEEP,))
    assert mouse.read().move == (0.0, 1.0, 0.2)
    assert mouse.read().move == (0.0, 0.0, 0.2)
    mouse.clicked(106, 76, middle, False)
    mouse.moved(0, 0)
    mouse.scrolled(0, 0, 0, -1)
    assert mouse.read().move == (0.0, 0.0, -0.8)
    mouse.rest()
    assert mouse.read().move == (0.0, 0.0, 0.2)


def test_dragging_in_another_window_moves_nothing():
    keys = SimpleNamespace(read=Command, rest=lambda: None)
    meant = [True]
    mouse = Mouse(keys, lambda **_: SimpleNamespace(start=lambda: None), lambda: meant[0])
    middle = SimpleNamespace(name="middle")
    mouse.clicked(100, 100, middle, True)
    meant[0] = False
    mouse.moved(106, 76)
    mouse.scrolled(0, 0, 0, 1)
    mouse.clicked(106, 76, middle, False)
    mouse.clicked(106, 76, middle, True)
    meant[0] = True
    mouse.moved(0, 0)
    assert mouse.read() == Command()
    mouse.scrolled(0, 0, 0, 1)
    meant[0] = False
    assert mouse.read() == Command()


@pytest.mark.parametrize("seen", ["moved", "read"])
def test_a_drag_ends_where_the_focus_is_lost(seen):
    keys = SimpleNamespace(read=Command, rest=lambda: None)
    meant = [True]
    mouse = Mouse(keys, lambda **_: SimpleNamespace(start=lambda: None), lambda: meant[0])
    mouse.clicked(100, 100, SimpleNamespace(name="middle"), True)
    meant[0] = False
    if seen == "moved":
        mouse.moved(400, 400)
    else:
        mouse.read()
    meant[0] = True
    mouse.moved(700, 700)
    mouse.moved(701, 700)
    assert mouse.read() == Command()


def here(platform="linux", terminal=True, modules=("pynput", "pygame"), trusted=False, **names):
    return Surroundings(platform, names, terminal, modules.__contains__, lambda: trusted)


@pytest.mark.parametrize(
    ("where", "device", "view", "reason"),
    [
        (here(DISPLAY=":0"), "keyboard", "window", "display"),
        (here(DISPLAY=":0", WAYLAND_DISPLAY="w"), "terminal", "window", "Wayland"),
        (here(DISPLAY=":0", XDG_SESSION_TYPE="wayland"), "terminal", "window", "Wayland"),
        (here(DISPLAY=":1", SSH_TTY="/dev/pts/1"), "terminal", "png", "SSH"),
        (here(), "terminal", "png", "no display"),
        (here(terminal=False), "web", "web", "no terminal"),
        (here(DISPLAY=":0", modules=()), "terminal", "window", "pip install"),
        (here("darwin"), "terminal", "web", "Input Monitoring"),
        (here("darwin", trusted=True), "terminal", "web", "cannot be known"),
        (here("win32"), "web", "web", "cannot be known here, and no terminal"),
    ],
)
def test_what_is_possible_is_found_out(where, device, view, reason):
    chosen = choose_device("auto", where)
    assert chosen.name == device
    assert reason in chosen.reason
    assert choose_view("auto", device, where).name == view


@pytest.mark.parametrize(
    ("view", "where", "device"),
    [
        ("window", here(DISPLAY=":0", terminal=False), "keyboard"),
        ("web", here(DISPLAY=":0"), "terminal"),
        ("web", here(DISPLAY=":0", terminal=False), "web"),
        ("png", here(DISPLAY=":0"), "terminal"),
        ("none", here(DISPLAY=":0", terminal=False), "keyboard"),
        ("window", here("win32"), "keyboard"),
    ],
)
def test_a_keyboard_that_other_windows_share_is_the_last_choice(view, where, device):
    assert choose_device("auto", where, view).name == device
    assert choose_view(view, device, where).name == view


@pytest.mark.parametrize(
    ("view", "platform", "warned"),
    [("window", "linux", False), ("web", "linux", True), ("window", "win32", True)],
)
@pytest.mark.parametrize("device", ["keyboard", "mouse"])
def test_who_shares_the_keyboard_is_told(device, view, platform, warned, monkeypatch, capsys):
    monkeypatch.setattr("sys.platform", platform)
    source = SimpleNamespace(has_expert=True, has_gripper=True)
    command._tell(Choice(device, ""), Choice(view, ""), source, load_bindings(), 20.0)
    assert ("type nowhere else" in capsys.readouterr().err) == warned


@pytest.mark.parametrize(
    ("asked", "where", "problem"),
    [
        ("keyboard", here(DISPLAY=":0", WAYLAND_DISPLAY="w"), "Wayland"),
        ("mouse", here(), "no display"),
        ("terminal", here(terminal=False), "needs a terminal"),
        ("terminal", here("win32"), "needs a terminal of Linux or macOS"),
        ("gamepad", here(modules=()), "pip install"),
    ],
)
def test_what_cannot_work_is_one_sentence(asked, where, problem):
    with pytest.raises(DemokitError, match=problem):
        choose_device(asked, where)


def test_views_that_cannot_work():
    with pytest.raises(DemokitError, match="no display"):
        choose_view("window", "terminal", here())
    with pytest.raises(DemokitError, match="main thread"):
        choose_view("window", "terminal", here("darwin"))
    with pytest.raises(DemokitError, match="its own view"):
        choose_view("png", "web", here())
    assert choose_device("terminal", here()).reason == "you asked for it"
