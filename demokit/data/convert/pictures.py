"""Pictures in files of others: decoded into arrays once their claims are checked."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from demokit.errors import DemokitError
from demokit.reading import justified_bytes
from demokit.types import Array

_FORMATS = ("PNG", "JPEG")
_MOST_PIXELS = 2**24
_MODES = ("L", "RGB")


def decode(pictures: Sequence[bytes], size: tuple[int, int]) -> Array:
    """Pictures as (T, height, width, 3), or (T, height, width) where they are grey; uint8.

    Args:
        pictures: files in PNG or JPEG format.
        size: the height and width that each must have.

    Raises:
        DemokitError: no such pictures, another size or depth, or more than they can hold.
    """
    height, width = size
    if height * width > _MOST_PIXELS:
        raise DemokitError(f"a picture of {height} x {width} is larger than demokit reads")
    claimed = 3 * height * width * len(pictures)
    # A file can name one picture many times.
    if claimed > justified_bytes(sum(map(len, set(pictures)))):
        raise DemokitError(f"its pictures claim {claimed} bytes, which are not in the file")
    found = [_decode(picture, size) for picture in pictures]
    if len({picture.shape for picture in found}) != 1:
        raise DemokitError("it has no pictures, or grey ones among those in colour")
    return np.stack(found)


def _decode(picture: bytes, size: tuple[int, int]) -> Array:
    from PIL import Image

    try:
        opened = Image.open(io.BytesIO(picture), formats=_FORMATS)
        found = opened.height, opened.width
        if found != size or opened.mode not in _MODES:
            raise DemokitError(f"a picture is {opened.mode} {found}, not RGB or grey {size}")
        return np.asarray(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DemokitError(f"a picture cannot be read ({error})") from error
