"""The Gymnasium face of the families: `Env` is a batch of one, `VectorEnv` is the batch itself.

Importing this module registers every family, `push` as `demokit/Push-v0` and `ant-dir` as
`demokit/AntDir-v0`; `gymnasium.make("demokit.envs.gym:demokit/Push-v0")` imports it by itself.

Both faces draw a task from a task set for each episode. The goal is never in the observation;
`info` always holds "success", "task" (its id) and "privileged" (what `SimBatch.privileged` gives).
An episode is truncated by the family at its horizon: no TimeLimit wrapper is needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from demokit.envs import installed_names, make_family
from demokit.envs.batch import SimState, make_sims
from demokit.envs.family import Bounds, Family
from demokit.envs.tasks import make_tasks, task_sets
from demokit.envs.vision import Vision, check_size
from demokit.errors import DemokitError, unknown_name
from demokit.types import Array, FloatArray, Observation, Task


class TaskSource:
    """The tasks that episodes are drawn from.

    Args:
        family: the task family.
        task_set: a task set of the family; None takes "paper" where there is one, else "uniform".
        split: a split of the task set.
        tasks: these tasks instead of a task set.
    """

    def __init__(
        self,
        family: Family,
        task_set: str | None = None,
        split: str = "train",
        tasks: Sequence[Task] | None = None,
    ) -> None:
        if tasks is not None and not tasks:
            raise DemokitError("An environment needs at least one task.")
        chosen = task_set or next(iter(task_sets(family)))
        self.tasks = tuple(tasks if tasks is not None else make_tasks(family, chosen, split))
        self._family = family.name
        for task in self.tasks:
            self._check(task)

    def draw(self, rng: np.random.Generator, wanted: Task | str | None) -> tuple[Task, int]:
        """A task (the one that is wanted, else a random one) and a seed for its episode."""
        index, seed = int(rng.integers(len(self.tasks))), int(rng.integers(2**31))
        if isinstance(wanted, Task):
            self._check(wanted)
            return wanted, seed
        if wanted is None:
            return self.tasks[index], seed
        by_id = {task.id: task for task in self.tasks}
        if wanted not in by_id:
            raise unknown_name("task", wanted, tuple(by_id))
        return by_id[wanted], seed

    def _check(self, task: Task) -> None:
        if task.family != self._family:
            raise DemokitError(f"Task '{task.id}' is not a task of {self._family}.")


class EnvState(NamedTuple):
    """A moment of an `Env`: the state of its simulation, and the task."""

    sims: SimState
    task: Task


class Env(gymnasium.Env[Any, FloatArray]):
    """One simulation of a family; it can be pickled and copied, mid-episode too.

    Args:
        family: name of the family.
        reward: one of the family's, such as "dense".
        observation: "state", "vision" or a `Vision`, see `SimBatch`.
        task_set, split, tasks: see `TaskSource`.
        render_mode: None, "rgb_array", or where there is a display "human".
        width, height, camera: of the pictures, in pixels.

    `reset(options={"task": t})` fixes the episode's task, by id or as a `Task`.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array", "human"],
        "render_fps": 20,
    }

    def __init__(
        self,
        family: str,
        *,
        reward: str = "dense",
        observation: str | Vision = "state",
        task_set: str | None = None,
        split: str = "train",
        tasks: Sequence[Task] | None = None,
        render_mode: str | None = None,
        width: int = 640,
        height: int = 480,
        camera: str = "scene",
    ) -> None:
        self._options = {k: v for k, v in locals().items() if k != "self"}
        self.family = make_family(family)
        self.metadata = _metadata(self.family)
        _check_render_mode(render_mode, self.metadata["render_modes"])
        check_size(height, width)
        self.render_mode = render_mode
        self.task_source = TaskSource(self.family, task_set, split, tasks)
        self.sims = make_sims(self.family, 1, reward=reward, num_threads=1, observation=observation)
        self.observation_space, self.action_space = _spaces(self.family, self.sims.vision)
        self._picture = {"width": width, "height": height}, camera
        self._renderer: Any = None
        self._task: Task | None = None

    @property
    def task(self) -> Task:
        """The episode's task; raises DemokitError before the first reset."""
        if self._task is None:
            raise DemokitError("The environment has no task yet: call reset() first.")
        return self._task

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw a task and start an episode; returns the observation and the info."""
        super().reset(seed=seed)
        task, episode_seed = self.task_source.draw(self.np_random, _wanted(options))
        self._task = None  # until its episode has begun
        observation = self.sims.reset(np.array([task.context]), [episode_seed], tasks=[task.id])
        self._task = task
        self._show()
        return _row(observation, 0), self._info()

    def step(self, action: FloatArray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply an action (A,), clipped to [-1, 1]."""
        _ = self.task
        step = self.sims.step(np.asarray(action)[None])
        self._show()
        ended = bool(step.terminated[0]), bool(step.truncated[0])
        return _row(step.observation, 0), float(step.reward[0]), *ended, self._info()

    def get_state(self) -> EnvState:
        """Physics, step counter and task now; raises DemokitError before a reset."""
        return EnvState(self.sims.get_state(), self.task)

    def set_state(self, state: EnvState) -> Observation:
        """Come back to a moment, bit for bit; returns its observation."""
        self._task = None
        observation = self.sims.set_state(state.sims, tasks=[state.task.id])
        self._task = state.task
        return _row(observation, 0)

    def render(self) -> NDArray[np.uint8] | None:
        """The scene with the goal, (height, width, 3) uint8; None without a render mode.

        With "human" it shows itself after every step, and this returns None.
        """
        if self.render_mode != "rgb_array":
            return None
        if self._renderer is None:
            from demokit.envs.render import Renderer

            size, camera = self._picture
            self._renderer = Renderer(self.family, **size, camera=camera)
        picture: NDArray[np.uint8] = self._renderer.render(
            self.sims, 0, np.array(self.task.context)
        )
        return picture

    def close(self) -> None:
        """Free what draws, and the environment of one of Gymnasium's; MuJoCo's step on."""
        self.sims.close()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def __getstate__(self) -> dict[str, Any]:
        moment = None if self._task is None else self.get_state()
        kept = {name: getattr(self, name) for name in ("_np_random_seed", "spec")}
        rng = deepcopy(self._np_random)  # a shallow copy draws its own episodes too
        return {"options": self._options, "moment": moment, "_np_random": rng, **kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state.pop("options"))  # type: ignore[misc]
        moment = state.pop("moment")
        self.__dict__.update(state)
        if moment is not None:
            self.set_state(moment)

    def _show(self) -> None:
        """Keep the window of render mode "human" up to date."""
        if self.render_mode != "human":
            return
        if self._renderer is None:
            from demokit.view.window import Window

            self._renderer = Window(self.family)
        self._renderer.show(self.sims.get_state().physics[0], np.array(self.task.context))

    def _info(self) -> dict[str, Any]:
        privileged = {name: values[0] for name, values in self.sims.privileged().items()}
        success = bool(privileged["success"])
        return {"success": success, "task": self.task.id, "privileged": privileged}


class VectorEnv(gymnasium.vector.VectorEnv[Any, FloatArray, Array]):
    """N simulations of a family, stepped together; each draws its own tasks.

    Simulation i behaves, bit for bit, like an `Env` whose seed is i more. `autoreset_mode` is
    any of Gymnasium's; with SAME_STEP, `info["final_obs"]` and `info["final_info"]` hold the
    last step of the episodes that ended.

    Args:
        family, reward, observation, task_set, split, tasks: see `Env`.
        num_envs: N.
        autoreset_mode: an `AutoresetMode` or its value, such as "SameStep".
        num_threads: threads that step and draw the simulations; 0 takes every CPU.
        render_mode: None or "rgb_array".
    """

    def __init__(
        self,
        family: str,
        num_envs: int = 1,
        *,
        reward: str = "dense",
        observation: str | Vision = "state",
        task_set: str | None = None,
        split: str = "train",
        tasks: Sequence[Task] | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        num_threads: int = 0,
        render_mode: str | None = None,
    ) -> None:
        self.num_envs = num_envs
        self.family = make_family(family)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**_metadata(self.family), "autoreset_mode": self.autoreset_mode}
        _check_render_mode(render_mode, ("rgb_array",))
        self.render_mode = render_mode
        self.sims = make_sims(
            self.family,
            num_envs,
            reward=reward,
            num_threads=num_threads,
            observation=observation,
        )
        spaces = _spaces(self.family, self.sims.vision)
        self.single_observation_space, self.single_action_space = spaces
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.task_source = TaskSource(self.family, task_set, split, tasks)
        self.tasks: list[Task | None] = [None] * num_envs
        self._rngs = [np_random()[0] for _ in range(num_envs)]
        self._ended = np.zeros(num_envs, np.bool_)
        self._renderer: Any = None

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start episodes in all simulations, or in those of `options["reset_mask"]` (N,) bool."""
        seeds, mask = _seeds(seed, self.num_envs), _reset_mask(options, self.num_envs)
        for index, each in enumerate(seeds):
            if each is not None and mask[index]:
                self._rngs[index] = np_random(each)[0]
        observation = self._start(np.flatnonzero(mask), _wanted(options))
        return observation, self._info(mask)

    def step(
        self, actions: FloatArray
    ) -> tuple[Observation, FloatArray, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Apply actions (N, A), clipped to [-1, 1]; ended episodes restart as the mode says."""
        self._require_tasks()
        before = self._ended
        if self.autoreset_mode == AutoresetMode.DISABLED and before.any():
            raise DemokitError("An episode has ended: reset it with options={'reset_mask': ...}.")
        step = self.sims.step(actions)
        observation, reward = step.observation, step.reward
        terminated, truncated = step.terminated, step.truncated
        extra: dict[str, Any] = {}
        if self.autoreset_mode == AutoresetMode.NEXT_STEP and before.any():
            observation = self._start(np.flatnonzero(before), None)
            reward, terminated, truncated = (
                np.where(before, 0, reward), terminated & ~before, truncated & ~before,
            )  # fmt: skip
        self._ended = terminated | truncated
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._ended.any():
            extra = self._final(observation)
            ended = self._ended
            observation, self._ended = self._start(np.flatnonzero(ended), None), ended & False
        info = {**self._info(np.ones(self.num_envs, np.bool_)), **extra}
        return observation, reward, terminated, truncated, info

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """One picture per simulation, see `Env.render`."""
        if self.render_mode is None:
            return None
        tasks = self._require_tasks()
        if self._renderer is None:
            from demokit.envs.render import Renderer

            self._renderer = Renderer(self.family)
        contexts = [np.array(task.context) for task in tasks]
        return tuple(self._renderer.render(self.sims, i, c) for i, c in enumerate(contexts))

    def close_extras(self, **kwargs: Any) -> None:  # noqa: ARG002
        """See `Env.close`."""
        self.sims.close()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _require_tasks(self) -> list[Task]:
        """The tasks of all simulations; raises DemokitError where one has not been reset yet."""
        tasks = [task for task in self.tasks if task is not None]
        if len(tasks) < self.num_envs:
            raise DemokitError("Environments have no tasks yet: call reset() of all of them first.")
        return tasks

    def _start(self, ids: NDArray[np.int64], wanted: Task | str | None) -> Observation:
        """Draw tasks for simulations `ids` and reset them; observations of all, (N, O)."""
        drawn = [self.task_source.draw(self._rngs[i], wanted) for i in ids]
        tasks, seeds = [task for task, _ in drawn], [seed for _, seed in drawn]
        self._assign(ids, [None] * len(ids))  # until their episodes have begun
        contexts, names = self.family.contexts(tasks), [task.id for task in tasks]
        observation = self.sims.reset(contexts, seeds, ids, tasks=names)
        self._assign(ids, tasks)
        self._ended = self._ended & ~np.isin(np.arange(self.num_envs), ids)
        return observation

    def _assign(self, ids: NDArray[np.int64], tasks: Sequence[Task | None]) -> None:
        for index, task in zip(ids, tasks, strict=True):
            self.tasks[index] = task

    def _info(self, mask: NDArray[np.bool_]) -> dict[str, Any]:
        """Gymnasium's layout: each key with a mask of the simulations that it holds for."""
        privileged = self.sims.privileged()
        ids = np.array([task.id if task else None for task in self.tasks], dtype=object)
        flat = {"success": privileged["success"], "task": ids}
        return {**_masked(flat, mask), **_masked({"privileged": _masked(privileged, mask)}, mask)}

    def _final(self, observation: Observation) -> dict[str, Any]:
        """The last observation and info of the episodes that ended in this step."""
        last = np.full(self.num_envs, None, dtype=object)
        for index in np.flatnonzero(self._ended):
            last[index] = _row(observation, int(index))
        return _masked({"final_obs": last, "final_info": self._info(self._ended)}, self._ended)


def register_envs() -> None:
    """Register every family as `demokit/<Name>-v0`; again is allowed."""
    for name in installed_names():
        env_id = f"demokit/{name.title().replace('-', '')}-v0"
        if env_id not in gymnasium.registry:
            gymnasium.register(
                env_id,
                entry_point="demokit.envs.gym:Env",
                vector_entry_point="demokit.envs.gym:VectorEnv",
                kwargs={"family": name},
            )


def _metadata(family: Family) -> dict[str, Any]:
    display = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    modes = ["rgb_array", "human"] if display else ["rgb_array"]
    return {"render_modes": modes, "render_fps": round(1 / family.control_dt_s)}


def _check_render_mode(mode: str | None, known: Sequence[str]) -> None:
    if mode == "human" and mode not in known:
        raise DemokitError("Render mode 'human' shows one simulation, and needs a display.")
    if mode not in (None, *known):
        raise unknown_name("render mode", str(mode), tuple(known))


def _spaces(family: Family, vision: Vision | None) -> tuple[Any, Any]:
    action = Box(-1, 1, (len(family.actions),), np.float32)
    if vision is None:
        return _box([family.bounds(term) for term in family.observation_terms]), action
    image = Box(0, 255, (vision.height, vision.width, 3), np.uint8)
    terms = {term.name: term for term in family.terms}
    images = dict.fromkeys(vision.image_names().values(), image)
    seen = {name: _box([family.bounds(terms[name])]) for name in family.vision_terms}
    return Dict({**images, **seen}), action


def _box(parts: Sequence[Bounds]) -> Box:
    """The space of terms side by side, float32."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is no bound
        low, high = (np.concatenate(side).astype(np.float32) for side in zip(*parts, strict=True))
    return Box(low, high, dtype=np.float32)


def _row(observation: Observation, index: int) -> Observation:
    """A copy of one simulation's observation."""
    if isinstance(observation, Mapping):
        return {name: values[index].copy() for name, values in observation.items()}
    return observation[index].copy()


def _wanted(options: Mapping[str, Any] | None) -> Task | str | None:
    """The task that is asked for; raises DemokitError where it is neither an id nor a `Task`."""
    wanted: object = (options or {}).get("task")
    if wanted is None or isinstance(wanted, Task | str):
        return wanted
    raise DemokitError(
        f"The task {wanted!r:.80} is neither the id of one nor a demokit.types.Task, which holds "
        "a context: give one of these."
    )


def _reset_mask(options: Mapping[str, Any] | None, num: int) -> NDArray[np.bool_]:
    """Which of `num` simulations start again: all where nothing is said; raises DemokitError."""
    mask = np.asarray((options or {}).get("reset_mask", np.ones(num, np.bool_)))
    if mask.dtype != np.bool_ or mask.shape != (num,) or not mask.any():
        raise DemokitError(
            f"The reset_mask {mask.tolist()} must be {num} booleans, one per simulation, and at "
            "least one of them true."
        )
    return mask


def _seeds(seed: int | Sequence[int | None] | None, num: int) -> Sequence[int | None]:
    """One seed per simulation: an int counts up, as in Gymnasium's own vector environments."""
    if seed is None:
        return [None] * num
    if isinstance(seed, int | np.integer):
        return [int(seed) + i for i in range(num)]
    if len(seed) != num:
        raise DemokitError(f"{len(seed)} seeds were given for {num} simulations.")
    return seed


def _masked(values: Mapping[str, Any], mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Every value, and under `_key` the simulations that it holds for."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out[key], out[f"_{key}"] = value, mask.copy()
    return out


register_envs()
