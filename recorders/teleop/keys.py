"""Keys and what they do: bindings from a TOML file, held keys, latched keys."""

from __future__ import annotations

import threading
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

from demokit.errors import DemokitError, unknown_name
from recorders.teleop.device import Command, Press

HOLDS = ("forward", "back", "left", "right", "up", "down", "fine", "fast")
SPEEDS = ("normal", "fine", "fast")
NAMED_KEYS = (
    *("up", "down", "left", "right", "page_up", "page_down", "home", "end", "insert", "delete"),
    *("backspace", "enter", "space", "tab", "esc", "shift", "ctrl", "alt"),
)
PLAIN_KEYS = tuple(ascii_lowercase + digits)
_AXIS = {"right": 0, "left": 0, "forward": 1, "back": 1, "up": 2, "down": 2}
_SIGN = {"right": 1, "left": -1, "forward": 1, "back": -1, "up": 1, "down": -1}
_BUTTONS = ("A", "B", "X", "Y", "LB", "RB", "back", "start", "guide")  # of an Xbox pad
_STICKS = {0: "left stick", 1: "left stick", 3: "right stick", 4: "right stick"}
_TYPED_WITH = {"shift": "fine", "ctrl": "fast"}


@dataclass(frozen=True)
class Bindings:
    """Key -> what it does, and how fast the hand goes.

    `hold` maps keys to one of HOLDS, `press` keys to a `Press`, `speed` each of SPEEDS to a share
    of the fastest; `gamepad` maps what the gamepad's axes and buttons are for to their numbers.
    """

    hold: Mapping[str, str]
    press: Mapping[str, Press]
    speed: Mapping[str, float]
    gamepad: Mapping[str, float]

    def keys(self, purpose: str) -> tuple[str, ...]:
        """The keys for one of HOLDS or a `Press`."""
        both: dict[str, str] = {**self.hold, **self.press}
        return tuple(key for key, what in both.items() if what == purpose)

    def button(self, press: Press) -> str:
        """The gamepad's button for a `Press`, as an Xbox pad calls it; '' where there is none."""
        number = int(self.gamepad.get(press, -1))
        if number < 0:
            return ""
        return _BUTTONS[number] if number < len(_BUTTONS) else f"button {number}"


_WHAT: Mapping[str, str] = {
    "forward": "forward, away from the robot",
    "fine": "finely, while held",
    "fast": "fast, while held",
    Press.STOP: "stand still",
    Press.GRIPPER: "close or open the gripper",
    Press.KEEP: "end the episode and keep it",
    Press.RERECORD: "drop it, the same start again",
    Press.DISCARD: "drop it, on to the next task",
    Press.PAUSE: "pause, go on",
    Press.EXPERT: "the expert takes over, gives back",
    Press.QUIT: "quit; asks about the episode",
}
_MOVES = {
    "left_right": "left and right",
    "forward_back": "forward and back",
    "up_down": "up and down",
}


def told_keys(bindings: Bindings, *, gripper: bool, expert: bool) -> list[tuple[str, str]]:
    """(keys, what they do), of those that do something; `expert` says whether one can take over."""
    purposes = (*HOLDS, *_in_use(gripper=gripper, expert=expert))
    keys = {purpose: "/".join(bindings.keys(purpose)) for purpose in purposes}
    return [(keys[purpose], _WHAT.get(purpose, purpose)) for purpose in purposes if keys[purpose]]


def told_buttons(bindings: Bindings, *, gripper: bool, expert: bool) -> list[tuple[str, str]]:
    """The same of a gamepad's sticks and buttons."""
    axes = [(int(bindings.gamepad[name]), what) for name, what in _MOVES.items()]
    buttons = [(bindings.button(p), _WHAT[p]) for p in _in_use(gripper=gripper, expert=expert)]
    return [
        *((_STICKS.get(axis, f"axis {axis}"), what) for axis, what in axes),
        *((button, what) for button, what in buttons if button),
    ]


def _in_use(*, gripper: bool, expert: bool) -> list[Press]:
    idle = {*([] if gripper else [Press.GRIPPER]), *([] if expert else [Press.EXPERT])}
    return [press for press in Press if press not in idle]


def load_bindings(path: Path | None = None) -> Bindings:
    """The bindings in a TOML file, over those that come with demokit.

    Raises:
        DemokitError: the file cannot be read, or binds what does not exist, or one key twice.
    """
    default = tomllib.loads((files("recorders.teleop") / "bindings.toml").read_text())
    given = {} if path is None else _read(path)
    for section, values in given.items():
        _check_names(path, section, values, default)
    merged = {section: {**values, **given.get(section, {})} for section, values in default.items()}
    _check_gamepad(merged["gamepad"])
    return Bindings(
        hold=_by_key(merged["hold"], merged["press"]),
        press={k: Press(v) for k, v in _by_key(merged["press"], merged["hold"]).items()},
        speed={name: _speed(name, merged["speed"][name]) for name in SPEEDS},
        gamepad={name: _number(name, value) for name, value in merged["gamepad"].items()},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DemokitError(f"The bindings {path} cannot be read: {error}.") from error


def _check_names(path: Path | None, section: str, values: Any, default: dict[str, Any]) -> None:
    if section not in default:
        raise unknown_name(f"section of {path}", section, tuple(default))
    if not isinstance(values, dict):
        raise DemokitError(f"{path}: [{section}] must be a table.")
    for name in values:
        if name not in default[section]:
            raise unknown_name(f"name in [{section}] of {path}", name, tuple(default[section]))


def _by_key(mine: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, str]:
    """Key -> purpose; raises DemokitError for a key that is bound twice."""
    found: dict[str, str] = {}
    taken = {key for keys in others.values() for key in _keys(keys)}
    for purpose, keys in mine.items():
        for key in _keys(keys):
            if key not in (*NAMED_KEYS, *PLAIN_KEYS):
                raise unknown_name(
                    f"key for '{purpose}'", key, ("a letter", "a digit", *NAMED_KEYS)
                )
            if key in found or key in taken:
                raise DemokitError(f"The key '{key}' is bound twice: bind it once.")
            found[key] = purpose
    return found


def _check_gamepad(given: Mapping[str, Any]) -> None:
    """Raise DemokitError where one of its axes or buttons is for two purposes."""
    for kind, names in (("axis", _MOVES), ("button", Press)):
        numbers = [_number(name, given[name]) for name in names if name in given]
        for number in numbers:
            if numbers.count(number) > 1:
                raise DemokitError(f"The gamepad's {kind} {number:g} is bound twice: bind it once.")


def _keys(keys: Any) -> list[str]:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise DemokitError(f'Bindings are lists of keys such as ["w", "up"], not {keys!r}.')
    return keys


def _number(name: str, value: Any) -> float:
    share = name == "dead_zone"
    number = isinstance(value, int | float if share else int) and not isinstance(value, bool)
    if not number or not value >= 0 or (share and value >= 1):
        what = "a share below 1" if share else "the number of a button or an axis"
        raise DemokitError(f"'{name}' under [gamepad] must be {what}, not {value!r}.")
    return float(value)


def _speed(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or not 0 < value <= 1:
        raise DemokitError(f"The speed '{name}' must be over 0 and at most 1, not {value!r}.")
    return float(value)


class HeldKeys:
    """Keys that report when they are released, as `Hands`; safe to feed from another thread."""

    def __init__(self, bindings: Bindings) -> None:
        self._bindings = bindings
        self._lock = threading.Lock()
        self._down: set[str] = set()
        self._tapped: set[str] = set()
        self._presses: list[Press] = []

    def press(self, key: str) -> None:
        """A key went down, or repeats itself."""
        with self._lock:
            if key in self._bindings.press and key not in self._down:
                self._presses.append(self._bindings.press[key])
            self._down.add(key)
            self._tapped.add(key)

    def push(self, button: str, text: str = "") -> None:  # noqa: ARG002
        """A button on the screen was clicked; it is called as its `Press`, and asks nothing."""
        with self._lock:
            self._presses.append(Press(button))

    def release(self, key: str) -> None:
        """A key went up."""
        with self._lock:
            self._down.discard(key)

    def clear(self) -> None:
        """All keys are up, such as when the window loses the focus."""
        with self._lock:
            self._down.clear()
            self._tapped.clear()

    def command(self) -> Command:
        """What the keys say now; presses are told once, and a short tap lasts for one step."""
        with self._lock:
            keys = self._down | self._tapped
            held = {self._bindings.hold[key] for key in keys if key in self._bindings.hold}
            presses, self._presses = tuple(self._presses), []
            self._tapped.clear()
        return Command(_move(held, self._bindings.speed), presses)


class LatchedKeys:
    """Keys of a terminal, which tells no releases: motion goes on until it is stopped.

    A key starts its direction; the opposite key stops it, and pressed again turns it around.
    `fine` and `fast` switch; a direction typed with Shift, as a capital letter is, goes finely
    until the next one, with Ctrl fast.
    """

    def __init__(self, bindings: Bindings) -> None:
        self._bindings = bindings
        self._held: set[str] = set()
        self._speed = "normal"
        self._once: str | None = None  # the speed that the last direction was typed with
        self._presses: list[Press] = []

    def type(self, key: str) -> None:
        """A key was typed, such as "w", "W" or "shift+up"."""
        modifier, _, key = key.rpartition("+")
        if len(key) == 1 and key.isupper():
            modifier, key = "shift", key.lower()
        if key in self._bindings.press:
            self._press(self._bindings.press[key])
        purpose = self._bindings.hold.get(key)
        if purpose in SPEEDS:
            self._speed = "normal" if self._speed == purpose else purpose
        elif purpose is not None:
            self._once = _TYPED_WITH.get(modifier)
            self._start(purpose)

    def clear(self) -> None:
        """Stand still, at normal speed."""
        self._held.clear()
        self._speed, self._once = "normal", None

    def command(self) -> Command:
        """What the keys say now; presses are told once."""
        presses, self._presses = tuple(self._presses), []
        held = self._held | {self._once or self._speed}
        return Command(_move(held, self._bindings.speed), presses)

    def _press(self, press: Press) -> None:
        if press is Press.STOP:
            self._held.clear()
        self._presses.append(press)

    def _start(self, direction: str) -> None:
        same_axis = {d for d in self._held if _AXIS[d] == _AXIS[direction]}
        self._held -= same_axis
        if not same_axis or direction in same_axis:
            self._held.add(direction)


def _move(held: set[str], speed: Mapping[str, float]) -> tuple[float, float, float]:
    """(right, forward, up) from the purposes that are held."""
    share = speed["fine"] if "fine" in held else speed["fast" if "fast" in held else "normal"]
    move = [0.0, 0.0, 0.0]
    for direction in held & _AXIS.keys():
        move[_AXIS[direction]] += _SIGN[direction] * share
    return move[0], move[1], move[2]
