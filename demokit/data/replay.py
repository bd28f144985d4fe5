"""Replaying episodes: coming back to recorded states, or doing recorded actions again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np

from demokit.data.metadata import DatasetMetadata
from demokit.envs import make_family
from demokit.envs.batch import SimState, make_sims
from demokit.envs.family import Family, reward_term
from demokit.envs.watch import SimulationFaultError
from demokit.errors import DemokitError
from demokit.types import Array, Episode, FloatArray, Task, as_rows

BATCH = 64
_COMPARED = ("", "state")  # the observations that simulations give


@dataclass(frozen=True, eq=False)
class Replay:
    """What the simulator gave for recorded rows of one episode.

    Attributes:
        rows: (R,) int64, which of the episode's T+1 rows, ascending.
        arrays: name as in `Dataset.window` -> (R, ...); arrays of T rows ("rewards",
            "terminations") stand at the row that their step reaches, row 0 is undefined.
        fault: why there are no later rows; empty where there are all that were asked for.
    """

    rows: Array
    arrays: Mapping[str, Array]
    fault: str = ""

    @property
    def states(self) -> FloatArray:
        """(R, S) float64."""
        return self.arrays["privileged/state"]


@dataclass(frozen=True)
class Deviation:
    """How far a replay is from the recording.

    Attributes:
        first_step: the first row, counted from 0, further off than the tolerance; None if none.
        largest: the largest absolute difference of any number.
        array: the array it is in; "" when there is no difference.
        fault: why the simulation did not get further; empty where it did.
    """

    first_step: int | None
    largest: float
    array: str
    fault: str = ""


class Replayer:
    """Simulates the episodes of one dataset.

    Args:
        metadata: of the dataset.
        num_sims: simulations stepped together.

    Raises:
        DemokitError: the family is unknown, or the dataset holds no states of its simulator.
    """

    def __init__(self, metadata: DatasetMetadata, *, num_sims: int = BATCH) -> None:
        if not metadata.provenance.restorable:
            raise DemokitError("The dataset holds no simulator state: it cannot be replayed.")
        self.family = make_family(metadata.family)
        self.metadata = metadata
        self._sims = make_sims(self.family, num_sims, reward=metadata.reward)
        self._num = num_sims

    @property
    def same_model(self) -> bool:
        """Whether it was recorded with the model and the MuJoCo that are here."""
        recorded = self.metadata.model_hash, self.metadata.mujoco_version
        return recorded == (self.family.model_hash, version("mujoco"))

    def from_states(self, episode: Episode, rows: Sequence[int] | None = None) -> Replay:
        """Restore the recorded states of `rows` (None: all) and observe them.

        Raises:
            DemokitError: the episode holds no state, or one of another model.
        """
        chosen = np.arange(len(episode) + 1) if rows is None else np.asarray(rows, np.int64)
        states = _states(episode)
        parts = []
        for start in range(0, len(chosen), self._num):
            part = chosen[start : start + self._num]
            filled = np.concatenate([part, np.repeat(part[-1:], self._num - len(part))])
            self._restore(states[filled], filled, [episode.task] * self._num)
            observed = self._observed(_actions_before(episode, filled))
            parts.append({name: values[: len(part)] for name, values in observed.items()})
        return Replay(chosen, {n: np.concatenate([p[n] for p in parts]) for n in parts[0]})

    def from_actions(self, episodes: Sequence[Episode]) -> list[Replay]:
        """Restore the first state of at most `num_sims` episodes and do their actions again.

        An episode whose simulation diverges is replayed up to there, and says so.

        Raises:
            DemokitError: an episode holds no state, or one of another model.
        """
        faults: dict[int, SimulationFaultError] = {}
        while True:
            try:
                return self._simulated(episodes, faults)
            except SimulationFaultError as fault:
                if fault.simulation in faults:
                    raise
                faults[fault.simulation] = fault

    def _simulated(
        self, episodes: Sequence[Episode], faults: Mapping[int, SimulationFaultError]
    ) -> list[Replay]:
        """See `from_actions`; what a fault has ended is not watched any more."""
        filled = [*episodes, *[episodes[-1]] * (self._num - len(episodes))]
        starts = np.stack([_states(episode)[0] for episode in filled])
        self._restore(starts, np.zeros(self._num, np.int64), [each.task for each in filled])
        ends = np.zeros(self._num, np.int64)
        ends[: len(episodes)] = [len(episode) for episode in episodes]
        ends[list(faults)] = [fault.step - 1 for fault in faults.values()]
        action = np.zeros((self._num, len(self.family.actions)), np.float32)
        seen = [self._observed(action)]
        for step in range(max(map(len, episodes))):
            action = np.stack([e.actions[min(step, len(e) - 1)] for e in filled])
            self._sims.retire(ends <= step)
            self._sims.step(action)
            seen.append(self._observed(action))
        stacked = {name: np.stack([row[name] for row in seen]) for name in seen[0]}
        return [
            _cut({name: values[:, sim] for name, values in stacked.items()}, e, faults.get(sim))
            for sim, e in enumerate(episodes)
        ]

    def _restore(self, states: FloatArray, steps: Array, tasks: Sequence[Task]) -> None:
        contexts = np.array([task.context for task in tasks])
        self._sims.set_state(SimState(states, steps, contexts), tasks=[task.id for task in tasks])

    def _observed(self, action: FloatArray) -> dict[str, Array]:
        """The simulations now; `action` (N, A) is the one that led here."""
        sims, family = self._sims, self.family
        privileged = sims.privileged()
        args = sims.terms, privileged["context"], action.astype(np.float64)
        for kind in family.rewards:
            privileged[reward_term(kind)] = family.reward(kind, *args)
        return {
            "observations": sims.observe(),
            "rewards": privileged[reward_term(self.metadata.reward)],
            "terminations": family.terminated(sims.terms),
            **{f"privileged/{name}": values for name, values in privileged.items()},
        }


def _cut(
    arrays: Mapping[str, Array], episode: Episode, fault: SimulationFaultError | None
) -> Replay:
    """The replay of an episode from rows that may go on behind its end, or behind a fault."""
    rows = len(episode) + 1 if fault is None else fault.step
    kept = {name: values[:rows] for name, values in arrays.items()}
    return Replay(np.arange(rows), kept, "" if fault is None else str(fault))


def _states(episode: Episode) -> FloatArray:
    if "state" not in episode.privileged:
        raise DemokitError("The episode holds no simulator state: it cannot be replayed.")
    return episode.privileged["state"]


def _actions_before(episode: Episode, rows: Array) -> FloatArray:
    """The action (R, A) that led to each row; zero for row 0."""
    padded = np.concatenate([np.zeros_like(episode.actions[:1]), episode.actions])
    return padded[rows]


def compare(episode: Episode, replay: Replay, tolerance: float = 0.0) -> Deviation:
    """Compare a replay with the recording; every array that both have counts."""
    first, largest, where = None, 0.0, ""
    for name, recorded, again, rows in _pairs(episode, replay):
        if recorded.shape != again.shape:
            return Deviation(int(rows[0]), float("inf"), name)
        apart = np.abs(recorded.astype(np.float64) - again.astype(np.float64))
        apart = np.nan_to_num(as_rows(apart), nan=np.inf).max(axis=1, initial=0.0)
        if apart.max(initial=0.0) > largest:
            largest, where = float(apart.max()), name
        beyond = rows[apart > tolerance]
        if len(beyond):
            first = int(beyond[0]) if first is None else min(first, int(beyond[0]))
    if replay.fault:
        first = len(replay.rows) if first is None else first
        return Deviation(first, float("inf"), where, replay.fault)
    return Deviation(first, largest, where)


def as_recorded(episode: Episode, replay: Replay) -> Replay:
    """The replay, its arrays under the names that they had when the episode was recorded.

    Before "sparse-paper" had a name of its own, it was what "sparse" meant.
    """
    arrays = dict(replay.arrays)
    paper, sparse = (arrays.get(f"privileged/{reward_term(k)}") for k in ("sparse-paper", "sparse"))
    if paper is None or sparse is None or reward_term("sparse-paper") in episode.privileged:
        return replay
    if np.array_equal(arrays["rewards"], sparse):
        arrays["rewards"] = paper
    return replace(replay, arrays={**arrays, f"privileged/{reward_term('sparse')}": paper})


def _pairs(episode: Episode, replay: Replay) -> Iterator[tuple[str, Array, Array, Array]]:
    """Name, recorded (R, ...), replayed (R, ...) and rows (R,) of each array both have."""
    replay = as_recorded(episode, replay)
    for name, recorded in _recorded(episode):
        again, rows = replay.arrays.get(name), replay.rows
        if again is None:
            continue
        if len(recorded) == len(episode):
            reached = rows > 0
            yield name, recorded[rows[reached] - 1], again[reached], rows[reached]
        else:
            yield name, recorded[rows], again, rows


def comparable(episode: Episode) -> Episode:
    """The episode as far as a `Replayer` and `compare` look at it: without its images."""
    seen = {n: rows for n, rows in episode.named_observations().items() if n in _COMPARED}
    return replace(episode, observations=seen)


def _recorded(episode: Episode) -> Iterator[tuple[str, Array]]:
    for name, values in episode.named_observations().items():
        if name in _COMPARED:
            yield "observations", values
    yield "rewards", episode.rewards
    yield "terminations", episode.terminations
    for name, values in episode.privileged.items():
        yield f"privileged/{name}", values


def frames(
    replayer: Replayer, episode: Episode, replays: Sequence[Replay], camera: str
) -> Iterator[Array]:
    """Pictures (H, W, 3) uint8 of each row, the replays side by side.

    Raises:
        DemokitError: no such camera, or nothing to draw with.
    """
    from demokit.envs.render import Renderer

    _check_camera(replayer.family, camera)
    for fault in filter(None, (replay.fault for replay in replays)):
        raise DemokitError(f"There is no picture of what was not simulated. {fault}")
    context = np.array(episode.task.context)
    renderer = Renderer(replayer.family, camera=camera)
    sims = make_sims(replayer.family, 1, num_threads=1)
    try:
        for row in range(len(episode) + 1):
            pictures = []
            for replay in replays:
                state = SimState(replay.states[row][None], np.array([row]), context[None])
                sims.set_state(state, tasks=[episode.task.id])
                pictures.append(renderer.render(sims, 0, context))
            yield np.concatenate(pictures, axis=1)
    finally:
        renderer.close()


def _check_camera(family: Family, camera: str) -> None:
    fixed = (family.model.camera(i).name for i in range(family.model.ncam))
    known = (*family.viewpoints, *fixed)
    if camera not in known:
        from demokit.errors import unknown_name

        raise unknown_name("camera", camera, known)


def recorded_states(episode: Episode) -> Replay:
    """The recording itself as a replay, to be drawn."""
    return Replay(np.arange(len(episode) + 1), {"privileged/state": _states(episode)})
