"""What a device is: something that says, whenever it is asked, what the person wants."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Press(StrEnum):
    """What a person asks for once, rather than as long as a key is held."""

    STOP = "stop"
    GRIPPER = "gripper"
    KEEP = "keep"
    RERECORD = "rerecord"
    DISCARD = "discard"
    PAUSE = "pause"
    EXPERT = "expert"
    QUIT = "quit"


@dataclass(frozen=True)
class Command:
    """What the person wants now.

    Attributes:
        move: (right, forward, up), each in [-1, 1]: shares of the fastest the hand can go along
            x, y and z of the world.
        presses: what was asked for since the device was read last, in order.
    """

    move: tuple[float, float, float] = (0.0, 0.0, 0.0)
    presses: tuple[Press, ...] = ()


class DeviceLost(Exception):  # noqa: N818
    """The device is gone: its message says which; reading it again may find it back."""


class Device(Protocol):
    """Something that a person drives the hand with."""

    name: str

    def read(self) -> Command:
        """What the person wants now, without waiting; raises DeviceLost."""
        ...

    def rest(self) -> None:
        """Forget motion that goes on without being asked for: an episode begins or pauses."""
        ...

    def close(self) -> None:
        """Give back what the device holds, such as the terminal; may be called twice."""
        ...
