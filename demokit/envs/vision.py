"""What images policies see: their size and cameras, without what draws them.

Source of the defaults: GMPS (Mendonca et al., 2019), 48x64 RGB beside the hand's position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from demokit.errors import DemokitError

_ALONE, _KEY = "image", "image_"
_LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Vision:
    """Size in pixels and cameras (of the model, or viewpoints of the family) of the images."""

    height: int = 48
    width: int = 64
    cameras: tuple[str, ...] = ("policy",)

    def __post_init__(self) -> None:
        """Check sizes and cameras; raises DemokitError."""
        check_size(self.height, self.width)
        if not self.cameras:
            raise DemokitError("Images need at least one camera.")

    def image_names(self) -> dict[str, str]:
        """Camera -> its key in the observation: "image" where "policy" is the only one."""
        if self.cameras == ("policy",):
            return {"policy": _ALONE}
        return {camera: f"{_KEY}{camera}" for camera in self.cameras}

    @classmethod
    def of_shapes(cls, shapes: Mapping[str, tuple[int, ...]]) -> Vision | None:
        """The images of observations with these keys and shapes; None where there are none."""
        images = {key: shape for key, shape in shapes.items() if len(shape) == 3}
        if not images:
            return None
        height, width, _ = next(iter(images.values()))
        cameras = tuple(key.removeprefix(_KEY) for key in images if key != _ALONE)
        return cls(height, width, cameras or ("policy",))


def check_size(height: object, width: object) -> None:
    """Raise DemokitError unless these are the sides of a picture in pixels."""
    for side in (height, width):
        if not isinstance(side, int | np.integer) or not 1 <= side <= _LARGEST_SIDE:
            raise DemokitError(
                f"A picture of {height} x {width}, height and width: each is a whole number of "
                f"pixels from 1 to {_LARGEST_SIDE}."
            )


def is_image(name: str) -> bool:
    """Whether images are called so in an observation."""
    return name == _ALONE or name.startswith(_KEY)
