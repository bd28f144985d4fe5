"""The card of a run: what was learned, from what, and what it earned, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demokit.errors import DemokitError
from demokit.learning.folder import METRICS
from demokit.policies import CHECKPOINT
from demokit.reading import MALFORMED, file_sha256, parse_object, read_bytes
from demokit.sharing.card import front_matter
from demokit.text import as_code, in_markdown
from gmps.agent.agent import TrainedAgent
from gmps.comparison.folder import TABLE, TOLD
from gmps.comparison.report import CHECKED
from gmps.comparison.rows import ACTORS, MAIN, Row, read_rows, select
from gmps.method import HasStepSize, IsTold, find_method
from gmps.options import differing_options
from gmps.progress import in_words
from gmps.runs.folder import last_scalars

EVALUATED = "evaluation"
"""Where `evaluate` puts the comparison of one run, in its folder."""


@dataclass(frozen=True, eq=False)
class Shown:
    """What a card is about.

    Attributes:
        agent: the policy.
        name: what it is called.
        license: its name.
        folder: of the run; None for a policy's file alone.
        learned_from: what the run was started with, and with which libraries, name -> words.
    """

    agent: TrainedAgent
    name: str
    license: str
    folder: Path | None
    learned_from: dict[str, str]


def render_card(shown: Shown) -> str:
    """The card, with front matter that Hugging Face reads."""
    family, method = shown.agent.family, shown.agent.method
    tags = ["demokit", "reinforcement-learning", "robotics", "meta-learning", method, family]
    matter = front_matter(shown.name, shown.license, ["pipeline_tag: robotics"], tags)
    return "\n".join([matter, _about(shown), _figures(shown), _use(shown), _provenance(shown)])


def _about(shown: Shown) -> str:
    agent, trained = shown.agent, shown.agent.trained
    images = trained.problem.sees != "state"
    method, learner = find_method(agent.method), trained.learner
    shapes = ", ".join(f"{name or 'state'} {shape}" for name, shape in agent.sight.shapes.items())
    facts = {
        "method": f"{as_code(agent.method)}: {in_markdown(method.about)}",
        "family": f"{as_code(agent.family)}, {in_markdown(trained.problem.reward)} reward, "
        f"horizon {agent.horizon} steps",
        "sees": in_markdown(shapes),
        "actions": in_markdown(", ".join(agent.action_names)),
        "training tasks": str(len(trained.problem.tasks)),
        "told": in_markdown(method.told_with(trained.options, images=images) or "not stated"),
        "adapts by": f"{in_markdown(method.adapts)}; {agent.episodes_per_step} episodes a step",
        "licence": in_markdown(shown.license),
    }
    if isinstance(learner, HasStepSize) and learner.step_size is not None:
        facts["step size"] = f"{learner.step_size:g}"
    if trained.adapted:
        facts["adapted to one task"] = f"{agent.steps} steps, {agent.episodes} episodes"
    rows = "\n".join(f"| {name} | {words} |" for name, words in facts.items())
    return f"\n# {in_markdown(shown.name)}\n\n| | |\n|---|---|\n{rows}\n"


def _figures(shown: Shown) -> str:
    """What was measured of it; says so where nothing was."""
    folder = None if shown.agent.trained.adapted else shown.folder
    monitored = in_words(last_scalars(folder / METRICS)) if folder else ""
    rows = _evaluated(folder) if folder else []
    parts = ["## Figures\n"]
    if monitored:
        parts.append(f"On monitor tasks while it was trained, as last measured: {monitored}.\n")
    if rows:
        parts.append(_table(rows))
    if len(parts) == 1:
        parts.append("None were measured: `demokit evaluate` does.\n")
    return "\n".join(parts)


def _evaluated(folder: Path) -> list[Row]:
    """What `demokit evaluate` has measured of this very checkpoint, by its mean; else nothing.

    Raises:
        DemokitError: the table is damaged, or another than was measured.
    """
    told, table = folder / EVALUATED / TOLD, folder / EVALUATED / TABLE
    if not told.is_file():  # it comes last: there is no evaluation, or no whole one
        return []
    try:
        content, checkpoint = parse_object(read_bytes(told)), file_sha256(folder / CHECKPOINT)
        own = next((run for run in content["runs"] if run.get(CHECKED) == checkpoint), None)
        if own is None:
            return []
        if content["table"] != file_sha256(table):
            raise ValueError(f"it is not the table that {TOLD} tells of")
        main = {"label": own["label"], "seed": own["seed"], "sweep": MAIN, "actor": ACTORS[0]}
        return select(read_rows(table), **main)
    except (OSError, *MALFORMED) as error:
        raise DemokitError(f"{table} cannot be read ({error}): evaluate again.") from None


def _table(rows: Sequence[Row]) -> str:
    found = ["Measured by `demokit evaluate`, the policy's mean, a mean over tasks:\n"]
    found += ["| tasks | episodes | success | return |", "|---|---|---|---|"]
    for split, episodes in dict.fromkeys((row.split, row.episodes) for row in rows):
        cell = [row for row in rows if (row.split, row.episodes) == (split, episodes)]
        success = np.mean([row.success for row in cell])
        earned = np.mean([row.episode_return for row in cell])
        tasks = f"{len(cell)} of {as_code(cell[0].task.rpartition('/')[0] or split)}"
        found.append(f"| {tasks} | {episodes} | {success:.2f} | {earned:.2f} |")
    return "\n".join(found) + "\n"


def _use(shown: Shown) -> str:
    trained = shown.agent.trained
    again, told = "" if trained.adapted else "trial = agent.new_task()\n", ""
    if isinstance(trained.learner, IsTold) and not trained.adapted:
        context = trained.problem.tasks[0].context
        again, told = "", f"agent = agent.new_task(context={context}, steps=0).adapted()\n"
    return f"""## Use

The folder that `demokit share pull` makes is a run's: checkpoints are tensors and JSON, and nothing
in them is executed.

```python
import demokit

agent = demokit.load_policy("FOLDER")
{told}action = agent.act(observation)
{again}```
"""


def _provenance(shown: Shown) -> str:
    trained = shown.agent.trained
    spent = ", ".join(f"{steps:,} {what}" for what, steps in trained.spent.parts().items() if steps)
    options = differing_options(trained.options)
    facts = {
        **shown.learned_from,
        "demonstrations": f"SHA-256 {trained.demos}" if trained.demos else "none, or not stated",
        "expert": trained.expert or "none, or not stated",
        "seed": str(trained.options.seed),
        "iterations": str(trained.iteration),
        "environment steps": spent or "none",
        "options other than default": ", ".join(f"{n}={v}" for n, v in options.items()) or "none",
    }
    lines = "".join(f"- {name}: {in_markdown(words)}\n" for name, words in facts.items())
    return f"## Provenance\n\n{lines}"
