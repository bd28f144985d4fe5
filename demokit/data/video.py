"""Moving pictures of episodes: MP4 files."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

from demokit.errors import DemokitError, not_installed
from demokit.types import Array
from demokit.writing import replaced

_QUALITY = "25"  # x264's constant rate factor: 0 is lossless, 51 the worst


def write_video(path: Path, pictures: Iterable[Array], rate_hz: float) -> int:
    """Write an MP4 of pictures (H, W, 3) uint8; returns how many.

    Raises:
        DemokitError: ffmpeg is missing, there are no pictures, or `path` cannot be written; no
            part of it is left.
    """
    try:
        ffmpeg: Any = import_module("imageio_ffmpeg")
    except ImportError as error:
        raise not_installed("Videos need", "imageio-ffmpeg") from error
    stream = iter(pictures)
    first = next(stream, None)
    if first is None:
        raise DemokitError(f"There are no pictures for {path}.")
    count = 0

    def check(aside: Path) -> None:
        if ffmpeg.count_frames_and_secs(str(aside))[0] != count:
            raise DemokitError(f"{path} was not written: parts of the video are missing.")

    with replaced(path, "choose another --video.", check) as aside:
        command = _command(ffmpeg.get_ffmpeg_exe(), first, rate_hz, aside)
        count = _encode(command, chain([first], stream))
    return count


def _command(program: str, picture: Array, rate_hz: float, aside: Path) -> list[str]:
    """H.264 as every player has it: in colours of half the resolution, so of even sides."""
    height, width, _ = picture.shape
    rate = Fraction(rate_hz).limit_denominator(100_000)
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate)]
    even = f"scale={width + width % 2}:{height + height % 2}"
    made = ["-vf", even, "-c:v", "libx264", "-crf", _QUALITY, "-pix_fmt", "yuv420p", "-f", "mp4"]
    return [program, "-v", "error", "-xerror", "-y", *given, "-i", "-", *made, f"file:{aside}"]


def _encode(command: list[str], pictures: Iterable[Array]) -> int:
    """Run ffmpeg on pictures; returns how many.

    Raises:
        OSError, RuntimeError: what it says of a failure, after which its pipe is only broken.
    """
    count = 0
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError):
                for picture in pictures:
                    process.stdin.write(picture.tobytes())
                    count += 1
            _, said = process.communicate()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        text = said.decode(errors="replace").strip()
        for number in errno.errorcode:
            if os.strerror(number) in text:
                raise OSError(number, os.strerror(number))
        raise RuntimeError(text or f"ffmpeg ended with {process.returncode}")
    return count
