"""Moving pictures of episodes: MP4 files."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from demokit.data.files import explain_write, rename_durably
from demokit.errors import DemokitError
from demokit.types import Array


def write_video(path: Path, pictures: Iterable[Array], rate_hz: float) -> int:
    """Write an MP4 of pictures (H, W, 3) uint8; returns how many.

    Raises:
        DemokitError: imageio is missing, or `path` cannot be written; no part of it is left.
    """
    try:
        import_module("imageio_ffmpeg")
        imageio: Any = import_module("imageio.v2")
    except ImportError as error:
        raise DemokitError('Videos need imageio: pip install "demokit[video]".') from error
    aside = path.with_name(f".{path.name}.tmp.mp4")
    count = 0
    with explain_write(path, "choose another --video."):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # ffmpeg would otherwise scale pictures to multiples of 16.
            with imageio.get_writer(aside, fps=rate_hz, macro_block_size=2) as writer:
                for picture in pictures:
                    writer.append_data(picture)
                    count += 1
            rename_durably(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    return count
