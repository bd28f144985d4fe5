"""Images of many simulations at once, as policies see them, without the goal.

Threads draw, each with an OpenGL context of its own. An image depends on the state alone, not on
the thread that drew it. The plain look (no shadows, no multisampling) and the viewpoints are ours.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TypeAlias

import mujoco
import numpy as np
from numpy.typing import NDArray

from demokit.envs.family import Family
from demokit.envs.render import Canvas, make_camera
from demokit.envs.vision import Vision
from demokit.types import FloatArray

Images: TypeAlias = dict[str, NDArray[np.uint8]]
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION.value


class ImageRenderer:
    """Draws the images of N simulations of one family.

    Args:
        family: the task family.
        vision: size and cameras.
        num_threads: threads that draw; 0 takes every CPU.

    Raises:
        DemokitError: nothing to draw with, or no such camera.
    """

    def __init__(self, family: Family, vision: Vision, num_threads: int = 0) -> None:
        self._family, self._vision = family, vision
        self._num_threads = num_threads or os.cpu_count() or 1
        self._begin()

    def render(self, states: FloatArray) -> Images:
        """Images (N, height, width, 3) of integration states (N, S), by observation key.

        After `close`, or what went wrong, it begins anew.
        """
        if not self._stop.alive:
            self._begin()
        shape = (len(states), self._vision.height, self._vision.width, 3)
        images = {key: np.empty(shape, np.uint8) for key in self._vision.image_names().values()}
        job = _Job(states, images, iter(range(len(states))))
        for jobs in self._jobs:
            jobs.put(job)
        self._wait()
        return images

    def close(self) -> None:
        """Let the threads free their contexts and end."""
        self._stop()

    def _begin(self) -> None:
        """Start the threads, with queues of their own: those of others may still be drawing."""
        self._jobs: list[SimpleQueue[_Job | None]] = []
        self._done: SimpleQueue[Exception | None] = SimpleQueue()
        self._stop = weakref.finalize(self, _stop, self._jobs)
        self._stop.atexit = False  # OpenGL may be gone by then, and contexts go with the process
        for _ in range(self._num_threads):
            jobs: SimpleQueue[_Job | None] = SimpleQueue()
            self._jobs.append(jobs)
            told = self._family, self._vision, jobs, self._done
            Thread(target=_draw_jobs, args=told, daemon=True).start()
        self._wait()

    def _wait(self) -> None:
        """Wait for all threads; where one of them, or the wait itself, fails, all of them end."""
        try:
            for problem in [self._done.get() for _ in self._jobs]:
                if problem is not None:
                    raise problem
        except BaseException:
            self.close()
            raise


@dataclass(frozen=True, eq=False)
class _Job:
    """`states` to draw into the same rows of `images`; threads take the next of `rows` in turn."""

    states: FloatArray
    images: Mapping[str, NDArray[np.uint8]]
    rows: Iterator[int]


class _Painter:
    """Canvas, cameras and scratch memory of one thread."""

    def __init__(self, family: Family, vision: Vision) -> None:
        self._canvas = Canvas(family.model, width=vision.width, height=vision.height, quick=True)
        names = vision.image_names()
        self._cameras = {key: make_camera(family, camera) for camera, key in names.items()}
        self._data = mujoco.MjData(self._canvas.model)
        self._options = mujoco.MjvOption()

    def paint(self, job: _Job) -> None:
        model, data = self._canvas.model, self._data
        for row in job.rows:
            mujoco.mj_setState(model, data, job.states[row], _STATE)
            mujoco.mj_kinematics(model, data)
            mujoco.mj_camlight(model, data)
            for key, camera in self._cameras.items():
                job.images[key][row] = self._canvas.draw(data, camera, self._options)

    def close(self) -> None:
        self._canvas.close()


def _draw_jobs(
    family: Family,
    vision: Vision,
    jobs: SimpleQueue[_Job | None],
    done: SimpleQueue[Exception | None],
) -> None:
    """The life of a thread: make the context, draw what comes, free the context."""
    try:
        painter = _Painter(family, vision)
    except Exception as error:
        done.put(error)
        return
    done.put(None)
    while (job := jobs.get()) is not None:
        try:
            painter.paint(job)
            done.put(None)
        except Exception as error:
            done.put(error)
    painter.close()


def _stop(jobs: list[SimpleQueue[_Job | None]]) -> None:
    for each in jobs:
        each.put(None)
