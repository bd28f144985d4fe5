"""What a plan says of the problem that a comparison's runs learn, and whether a run learned it."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from demokit.envs import make_family
from demokit.envs.family import Family
from demokit.envs.tasks import make_tasks, task_sets
from demokit.options import dashed
from gmps.comparison.evaluated_run import Facts, digest_of
from gmps.comparison.plan import Options, PlannedRun, parsed
from gmps.options import RECORDED
from gmps.runs.folder import source_of

_SOME = ("split", "num-episodes", "only-success", "device")
"""Options of `record` by which a dataset need not have all tasks that it names."""
_HOW = ("noise", "num_episodes", "episodes_per_task", "only_success", "image_size", "camera")
"""Parameters of `record` that decide which episodes a dataset has of its tasks."""


class Asked(NamedTuple):
    """The problem of a comparison; what the plan does not say is empty.

    Attributes:
        source: what is learned from, as runs keep it.
        family, observation: names.
        reward: the one that was recorded.
        tasks: digest of the training tasks, see `Facts.tasks`.
        recorded: how the demonstrations are recorded, see `Facts.recorded`.
        task_set, task_seed: what the training tasks are of, see `Facts`.
        expert: who demonstrates.
    """

    source: str
    family: str = ""
    observation: str = ""
    reward: str = ""
    tasks: str = ""
    recorded: Options = MappingProxyType({})
    task_set: str = ""
    task_seed: int = 0
    expert: str = ""

    @classmethod
    def of_dataset(cls, source: str, options: Options) -> Asked:
        """The same by a dataset of a plan, also how it is recorded."""
        found = cls.of(source, options)
        if "path" in options:
            return found
        given = parsed(source, options, "record")
        said = {name: given[name] for name in _HOW}
        # As JSON gives it back.
        listed = {name: list(v) if isinstance(v, tuple) else v for name, v in said.items()}
        return found._replace(recorded=listed)

    @classmethod
    def of(cls, source: str, options: Options) -> Asked:
        """By the options that say which tasks, or what is recorded; raises DemokitError."""
        if "path" in options:
            return cls(source)
        given = {name.replace("_", "-"): value for name, value in options.items()}
        family, task_set, seed = _drawn_from(given)
        return cls(
            source,
            family.name,
            given.get("observation", "state"),
            given.get("reward", "dense"),
            _tasks_of(given),
            task_set=task_set,
            task_seed=seed,
            expert=str(given.get("expert", "")),
        )

    def differing(self, folder: Path, planned: PlannedRun, facts: Facts) -> str:
        """In what the run in a folder has learned something else, in words; empty: in nothing.

        What a run does not say is taken for the same: archives that are older than a fact, such as
        how the demonstrations were recorded, count as before.
        """
        own, reward = source_of(folder) or self.source, planned.options.reward
        sees = facts.sees if facts.sees in ("", "state") else "vision"
        pairs = {
            "demonstrations or tasks": (Path(own).name, Path(self.source).name),
            "task families": (facts.family_name, self.family),
            "rewards": (facts.reward, self.reward if reward == RECORDED else reward),
            "observations": (sees, self.observation),
            "training tasks": (facts.tasks, self.tasks),
        }
        how = [name for name, be in self.recorded.items() if facts.recorded.get(name, be) != be]
        # Older archives, and datasets that somebody else made, do not say all of it.
        found = [what for what, (is_, be) in pairs.items() if is_ and be and is_ != be]
        return next(iter([*found, *(f"demonstrations ({dashed(name)})" for name in how)]), "")


def _tasks_of(options: Options) -> str:
    """Digest of the training tasks of a family, or of those that `record` would take."""
    if not {*_SOME}.isdisjoint(options):
        return ""
    family, task_set, seed = _drawn_from(options)
    return digest_of(
        make_tasks(family, task_set, "train", num_tasks=options.get("tasks"), seed=seed)
    )


def _drawn_from(options: Options) -> tuple[Family, str, int]:
    """The family, the task set and the seed of its draws."""
    family = make_family(str(options["env"]))
    named = [name for name, splits in task_sets(family).items() if "train" in splits]
    return family, options.get("task-set", named[0]), int(options.get("seed", 0))
