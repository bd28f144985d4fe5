"""PointCorner: the point must find which of four corners pays, and go there.

Sources. 2DPointEnvCorner of the meta-exploration report (Gurumurthy et al., 2019): goals in one of
four corner regions, reward only near the goal; horizon 100 as MAML's point.

Deviations. The report states no sizes, and those of its authors' code are another task
(`point-corner-2m`): the corners are at (+-1, +-1) m, regions of 0.4 m by 0.4 m
around them, so that a round of all four takes about 90 of the 100 steps; the sparse reward is
`point`'s, and so are model, control, the dense reward and success. Out of distribution (ours):
goals within 1.4 m along each axis that lie in no corner.
"""

from __future__ import annotations

from demokit.envs.family import ContextSpace
from demokit.envs.point import Point

CORNER_M = 1.0
REGION_HALF_M = 0.2


class PointCorner(Point):
    """A point in the plane; context: the goal (x, y) in metres, in a corner."""

    name = "point-corner"
    horizon = 100
    context = ContextSpace(
        names=("goal_x", "goal_y"),
        units=("m", "m"),
        low=(-CORNER_M - REGION_HALF_M,) * 2,
        high=(CORNER_M + REGION_HALF_M,) * 2,
        ood_low=(-1.4, -1.4),
        ood_high=(1.4, 1.4),
        regions=tuple(
            (
                (x * CORNER_M - REGION_HALF_M, y * CORNER_M - REGION_HALF_M),
                (x * CORNER_M + REGION_HALF_M, y * CORNER_M + REGION_HALF_M),
            )
            for x in (-1, 1)
            for y in (-1, 1)
        ),
    )
    paper_sizes = {"train": 40, "validation": 20}  # noqa: RUF012
