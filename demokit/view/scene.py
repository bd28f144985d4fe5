"""What shows a simulation to a person who may turn the picture: a window, or a web page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import mujoco

from demokit.types import FloatArray

STATE = mujoco.mjtState.mjSTATE_INTEGRATION.value


class Scene(Protocol):
    """Shows one simulation of one family, with words over it."""

    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        ...

    def say(self, words: Sequence[tuple[str, str]]) -> None:
        """Write (name, value) pairs over the picture, in place of the last ones."""
        ...

    def show(self, state: FloatArray, context: FloatArray) -> None:
        """Show a recorded state (S,), see `SimState`, with the goal of context (C,)."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Hands(Protocol):
    """Who is told what a person presses in a scene; the calls come from another thread."""

    def press(self, key: str) -> None:
        """A key went down."""
        ...

    def release(self, key: str) -> None:
        """A key went up."""
        ...

    def push(self, button: str, text: str = "") -> None:
        """A button on the screen was clicked; `text` answers what it asks for."""
        ...


def physics_of(model: mujoco.MjModel, state: FloatArray) -> FloatArray:
    """MuJoCo's part of a recorded state (S,); adapted environments keep more behind it."""
    return state[: mujoco.mj_stateSize(model, STATE)]


def restore(model: mujoco.MjModel, data: mujoco.MjData, state: FloatArray) -> None:
    """Put a recorded state (S,) into `data`."""
    mujoco.mj_setState(model, data, physics_of(model, state), STATE)
