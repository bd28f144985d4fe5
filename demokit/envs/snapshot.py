"""A picture of a family, as a small PNG: the first task, at its start."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demokit.envs.batch import make_sims
from demokit.envs.family import Family
from demokit.envs.render import Renderer
from demokit.envs.tasks import make_tasks, task_sets
from demokit.writing import write_whole

COLOURS = 128  # of the palette: a quarter of the size, no difference to be seen


def write_snapshot(family: Family, path: Path, *, camera: str = "scene") -> Path:
    """Write a 640x480 PNG of a start of the family's first task; returns the path.

    Raises:
        DemokitError: nothing to draw with, no such camera, or the file cannot be written.
    """
    task = make_tasks(family, next(iter(task_sets(family))), "train", num_tasks=1)[0]
    context = np.array(task.context)
    sims = make_sims(family, 1)
    sims.reset(context[None], [0], tasks=[task.id])
    renderer = Renderer(family, camera=camera)
    try:
        write_png(renderer.render(sims, 0, context), path)
    finally:
        renderer.close()
    return path


def write_png(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture (height, width, 3) as a PNG with a palette; raises DemokitError."""
    from PIL import Image

    image = Image.fromarray(picture).quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG)
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    write_whole(path, stream.getvalue(), "choose another --out.")
