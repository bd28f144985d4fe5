"""A picture file as a view: where there is no display, and for viewers of one's own."""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demokit.envs.batch import SimBatch, SimState
from demokit.envs.family import Family
from demokit.errors import DemokitError
from demokit.types import FloatArray
from demokit.writing import aside_of, behind_link, explain_write, replaced
from recorders.teleop.view import Status

PERIOD_S = 0.2
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ADVICE = "name another --picture."


class PngView:
    """Writes a picture of the simulation over and over, in a thread of its own.

    The file is replaced as a whole, so that whoever shows it never sees half a picture. The first
    one is there from the start.

    Args:
        family: what is drawn.
        path: the file; None takes a temporary one, which is gone after `close`.

    Raises:
        DemokitError: nothing to draw with, the file is there and no PNG, or it cannot be written.
    """

    name = "png"

    def __init__(self, family: Family, path: Path | None) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="demokit-") if path is None else None
        self.path = path or Path(self._scratch.name if self._scratch else "", "view.png")
        _check_picture(self.path)
        self._family = family
        self._latest: tuple[SimState, FloatArray] | None = None
        self._stop, self._ready = threading.Event(), threading.Event()
        self._problem: DemokitError | None = None
        self._thread = threading.Thread(target=self._draw, daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._problem is not None:
            raise self._problem

    def is_open(self) -> bool:
        """See `View`: it cannot be closed."""
        return True

    def show(self, sims: SimBatch, context: FloatArray, status: Status) -> None:  # noqa: ARG002
        """See `View`."""
        self._latest = sims.get_state(), context

    def close(self) -> None:
        """See `View`."""
        self._stop.set()
        self._thread.join()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _draw(self) -> None:
        from demokit.envs.render import Renderer

        with ExitStack() as stack:
            try:
                renderer = Renderer(self._family)
                stack.callback(renderer.close)
                sims = SimBatch(self._family, 1, num_threads=1)
                sims.reset(np.zeros((1, self._family.context.width)), [0])
                with replaced(self.path, _ADVICE, _check_picture) as aside:
                    _save(renderer.render(sims), aside)
            except DemokitError as error:
                self._problem = error
                return
            finally:
                self._ready.set()
            while not self._stop.wait(PERIOD_S):
                if (latest := self._latest) is not None:
                    self._latest = None
                    state, context = latest
                    sims.set_state(state)
                    self._write(renderer.render(sims, 0, context))

    def _write(self, picture: NDArray[np.uint8]) -> None:
        """Replace the picture; that one is lost in a crash is no harm."""
        path = behind_link(self.path)
        aside = aside_of(path)
        try:
            _save(picture, aside)
            os.replace(aside, path)
        except OSError:
            # A full disk stops the pictures, not the recording.
            with suppress(OSError):
                aside.unlink(missing_ok=True)


def _save(picture: NDArray[np.uint8], path: Path) -> None:
    from PIL import Image

    Image.fromarray(picture).save(path, format="PNG", compress_level=1)


def _check_picture(path: Path) -> None:
    """Raise DemokitError where a file is there that is no PNG."""
    with explain_write(path, _ADVICE):
        if not path.exists():
            return
        if path.is_file():
            with path.open("rb") as file:
                if file.read(len(_SIGNATURE)) == _SIGNATURE:
                    return
    raise DemokitError(f"{path} is there and no PNG picture: {_ADVICE}")
