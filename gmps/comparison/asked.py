"""What a plan says of the problem that a comparison's runs learn, and whether a run learned it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from demokit.envs import make_family
from demokit.envs.tasks import make_tasks, task_sets
from gmps.comparison.evaluated_run import Facts, digest_of
from gmps.comparison.plan import Options, PlannedRun
from gmps.options import RECORDED
from gmps.runs.folder import source_of

_SOME = ("split", "num-episodes", "only-success", "device")
"""Options of `record` by which a dataset need not have all tasks that it names."""


class Asked(NamedTuple):
    """The problem of a comparison; what the plan does not say is empty.

    Attributes:
        source: what is learned from, as runs keep it.
        family, observation: names.
        reward: the one that was recorded.
        tasks: digest of the training tasks, see `Facts.tasks`.
    """

    source: str
    family: str = ""
    observation: str = ""
    reward: str = ""
    tasks: str = ""

    @classmethod
    def of(cls, source: str, options: Options) -> Asked:
        """By the options that say which tasks, or what is recorded; raises DemokitError."""
        if "path" in options:
            return cls(source)
        given = {name.replace("_", "-"): value for name, value in options.items()}
        observation, reward = given.get("observation", "state"), given.get("reward", "dense")
        return cls(source, str(given["env"]), observation, reward, _tasks_of(given))

    def differing(self, folder: Path, planned: PlannedRun, facts: Facts) -> str:
        """In what the run in a folder has learned something else, in words; empty: in nothing."""
        own, reward = source_of(folder) or self.source, planned.options.reward
        sees = facts.sees if facts.sees in ("", "state") else "vision"
        pairs = {
            "demonstrations or tasks": (Path(own).name, Path(self.source).name),
            "task families": (facts.family_name, self.family),
            "rewards": (facts.reward, self.reward if reward == RECORDED else reward),
            "observations": (sees, self.observation),
            "training tasks": (facts.tasks, self.tasks),
        }
        # Older archives, and datasets that somebody else made, do not say all of it.
        return next((what for what, (is_, be) in pairs.items() if is_ and be and is_ != be), "")


def _tasks_of(options: Options) -> str:
    """Digest of the training tasks of a family, or of those that `record` would take."""
    if not {*_SOME}.isdisjoint(options):
        return ""
    family = make_family(str(options["env"]))
    named = [name for name, splits in task_sets(family).items() if "train" in splits]
    task_set, seed = options.get("task-set", named[0]), int(options.get("seed", 0))
    num = options.get("tasks")
    return digest_of(make_tasks(family, task_set, "train", num_tasks=num, seed=seed))
