"""The dataset card NAME.md: a Hugging Face card rendered from metadata and summary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demokit.data.metadata import UNSTATED
from demokit.data.store import open_dataset
from demokit.data.summary import Summary, summarize
from demokit.sharing.card import front_matter, quoted
from demokit.text import as_code, in_markdown, say
from demokit.writing import behind_link, explain_write, write_whole

_START = b"---\npretty_name: "
_COMPLETE = "the dataset itself is complete."
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))


def write_card(path: str | Path) -> Path | None:
    """Write the card of a finished dataset next to it; returns the card's path.

    A file there that is no card is left as it is: stderr says so, and None is returned.

    Raises:
        DemokitError: the dataset cannot be read or the card cannot be written.
    """
    card = render_card(summarize(open_dataset(path)))
    target = Path(path).with_suffix(".md")
    with explain_write(target, _COMPLETE):
        if target.exists() and not _is_card(target):
            say(f"{target} is no card of demokit: it was left as it is.", err=True)
            return None
    write_whole(target, card, _COMPLETE)
    return target


def refresh_card(path: str | Path) -> None:
    """Let a card that stands beside a new dataset say what this one is; raises as `write_card`."""
    path = behind_link(Path(path))
    card = path.with_suffix(".md")
    with explain_write(card, _COMPLETE):
        is_stale = card.is_file() and _is_card(card)
    if is_stale:
        write_card(path)


def _is_card(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_START)) == _START


def render_card(summary: Summary) -> str:
    """The card as Markdown with YAML front matter."""
    parts = (_front_matter(summary), _about(summary), _contents(summary), _provenance(summary))
    return "\n".join(parts)


def _front_matter(summary: Summary) -> str:
    about = summary.metadata
    tags = ["demokit", "minari", "demonstrations", "imitation-learning", "mujoco", about.family]
    lines = ["task_categories:", "- robotics", "- reinforcement-learning", "size_categories:"]
    lines.append(f"- {_size_category(summary.steps)}")
    return front_matter(f"{about.family} demonstrations", about.license, lines, tags)


def _size_category(steps: int) -> str:
    return next((name for limit, name in _SIZES if steps < limit), "n>1M")


def _about(summary: Summary) -> str:
    about = summary.metadata
    name = in_markdown(Path(summary.path).stem)
    family, task_set = as_code(about.family), as_code(about.task_set)
    kind = in_markdown(about.reward)
    license = about.license or "none stated: ask the author before you use or share it"
    least, mean, greatest = summary.returns
    return f"""
# {name}

{in_markdown(about.description) or f"Demonstrations of the task family {family}."}

| | |
|---|---|
| family | {family}, {kind} reward, horizon {about.horizon} steps |
| task set | {task_set}, {len(summary.tasks)} of {len(about.tasks)} tasks have episodes |
| episodes | {summary.episodes} ({summary.steps} steps, {summary.size_bytes / 1e6:.1f} MB) |
| success rate | {summary.success_rate:.0%} |
| mean return | {mean:.2f} (from {least:.2f} to {greatest:.2f}) |
| labels | {summary.labels.words()} |
| licence | {in_markdown(license)} |
"""


def _contents(summary: Summary) -> str:
    rows = "\n".join(
        f"| {as_code(row.task.id)} | {', '.join(f'{c:.3g}' for c in row.task.context)} | "
        f"{row.episodes} | {row.success_rate:.0%} | {row.mean_return:.2f} |"
        for row in summary.tasks
    )
    return f"""## Tasks

| task | context | episodes | success | mean return |
|---|---|---|---|---|
{rows}

## Layout

One HDF5 file in Minari's layout: `episode_<i>/observations` (T+1 rows), `actions`, `rewards`,
`terminations`, `truncations` (T rows), and under `infos/privileged` (T+1 rows) what a learner must
not see: the simulator's full `state`, the task's `context`, who acted (`by_expert`), and where an
expert advised, what it would have done (`expert_action`). What a step teaches, its label, is the
action of whoever acted: of an expert its own, without noise; else the executed one.

```python
from demokit.data import open_dataset

with open_dataset({quoted(Path(summary.path).name)}) as dataset:
    episode = dataset[0]
```
"""


def describe_noise(noise_std: float | None) -> str:
    """The noise on executed actions, in words."""
    known = f"of {noise_std:g}" if noise_std is not None else UNSTATED
    return f"action noise {known}"


def _trained(trained: Mapping[str, Any]) -> str:
    if not trained:
        return ""
    returns = trained["returns"].values()
    earned = f" (mean return there {sum(returns) / len(returns):.1f})" if returns else ""
    task_set, digest = as_code(trained["task_set"]), as_code(trained["sha256"])
    return (
        f"- the expert was trained for {trained['env_steps']:,} environment steps on the training "
        f"tasks of {task_set}{earned}; "
        f"its file: SHA-256 {digest}\n"
    )


def _provenance(summary: Summary) -> str:
    about, source = summary.metadata, summary.metadata.provenance
    versions = ", ".join(f"{name} {number}" for name, number in source.versions.items())
    lost = [
        f"- missing: {in_markdown(f'{what} ({why})')}\n" for what, why in source.missing.items()
    ]
    acted = f"recorder {as_code(source.recorder)}, expert {as_code(source.expert)}"
    model = as_code(about.model_hash or "not stated")
    seed = UNSTATED if source.seed is None else source.seed
    return f"""## Provenance

- {acted}, {describe_noise(source.noise_std)}
- kept: {in_markdown(about.kept)}
- operator: {in_markdown(source.operator or "not stated")}
{_trained(source.trained)}- seed {seed}, recorded {in_markdown(source.created)}
- versions: {in_markdown(versions)}
- model: SHA-256 {model}, MuJoCo {in_markdown(about.mujoco_version)}
- checksum of all episodes: `{summary.checksum}`
- schema version {about.schema_version}
{"".join(lost)}"""
