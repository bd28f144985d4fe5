"""The checkpoint of a run: what was learned, and everything needed to go on bit for bit."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from demokit.envs.vision import Vision
from demokit.errors import DemokitError
from demokit.learning.checkpoint import (
    check_tensors,
    explain_content,
    load_checkpoint,
    save_checkpoint,
)
from demokit.types import Task
from gmps.options import TrainConfig
from gmps.methods.gmps.critic import PREFIX as CRITIC
from gmps.methods.gmps.latents import Exploration
from gmps.methods.gmps.learner import Learned, adapted_part
from gmps.methods.gmps.objective import MetaParams
from gmps.methods.gmps.start import base_advantage, make_policy
from gmps.runs.stopping import Best

CHECKPOINT = "checkpoint.safetensors"
_MOST_SEGMENTS = 10_000


def save(path: Path, learned: Learned, extra: dict[str, Tensor], progress: dict[str, Any]) -> None:
    """Write a checkpoint; `extra` (the optimiser) and `progress` come back from `load`."""
    tensors = {
        **{f"theta.{name}": value for name, value in learned.meta.theta.items()},
        **{f"alpha.{name}": value for name, value in learned.meta.step_sizes.items()},
        **{f"extra.{name}": value for name, value in extra.items()},
        "observation_mean": learned.policy.feature_mean,
        "observation_scale": learned.policy.feature_scale,
    }
    best = learned.best
    if best is not None:
        tensors |= {f"best_theta.{name}": value for name, value in best.meta.theta.items()}
        tensors |= {f"best_alpha.{name}": value for name, value in best.meta.step_sizes.items()}
    columns = learned.advantage.radial_columns
    if learned.advantage.centers is not None:
        tensors["centers"] = learned.advantage.centers
    header = {
        "kind": "gmps",
        "config": asdict(learned.config),
        "family": learned.family_name,
        "model_hash": learned.family.model_hash,
        "reward": learned.reward,
        "tasks": [asdict(task) for task in learned.tasks],
        "vision": asdict(learned.sees) if isinstance(learned.sees, Vision) else None,
        "radial_columns": [columns.start, columns.stop] if columns else None,
        "radial_width": learned.advantage.radial_width,
        "segments": learned.exploration.segments if learned.exploration else None,
        "later_lr": learned.later_lr,
        "env_steps": learned.env_steps,
        "experts": dict(learned.experts),
        "demos": learned.demos,
        **({} if best is None else {"best": {"score": best.score, "waited": best.waited}}),
        "progress": progress,
    }
    save_checkpoint(path, tensors, header)


def load(path: Path) -> tuple[Learned, dict[str, Tensor], dict[str, Any]]:
    """Read a run folder or a checkpoint file: what was learned, `extra` and `progress`.

    Raises:
        DemokitError: no checkpoint, a damaged one, or one of another physics.
    """
    path = path / CHECKPOINT if path.is_dir() else path
    tensors, header = load_checkpoint(path)
    if header.get("kind") != "gmps":
        raise DemokitError(f"{path} is a checkpoint of '{header.get('kind')}', not of gmps.")
    with explain_content(path):
        learned = _from_parts(tensors, header)
        extra, progress = _section(tensors, "extra."), dict(header["progress"])
        progress["iteration"] = int(progress["iteration"])
        is_same = learned.family.model_hash == header["model_hash"]
    if not is_same:
        raise DemokitError(
            f"{path} was trained on another model of {learned.family_name}: train again."
        )
    return learned, extra, progress


def _from_parts(tensors: dict[str, Tensor], header: dict[str, Any]) -> Learned:
    config = TrainConfig(**header["config"])
    columns, images = header["radial_columns"], header.get("vision")
    sees = Vision(**{**images, "cameras": tuple(images["cameras"])}) if images else "state"
    tasks = tuple(Task(**{**task, "context": tuple(task["context"])}) for task in header["tasks"])
    exploration = None
    if config.explores_latents:
        segments = int(header["segments"])
        if not 1 <= segments <= _MOST_SEGMENTS:
            raise ValueError(f"{segments} segments")
        exploration = Exploration.over(tasks, segments, config.temperature)
    policy = make_policy(
        config,
        header["family"],
        sees,
        tensors["theta.log_std"].shape[0],
        tensors["observation_mean"],
        tensors["observation_scale"],
        exploration,
    )
    meta = _meta(tensors, config)
    theta = {name: each for name, each in meta.theta.items() if not name.startswith(CRITIC)}
    check_tensors(theta, lambda: policy.init(None), "parameters")
    if config.is_meta:
        adapts = adapted_part(config, theta)
        check_tensors(meta.step_sizes, lambda: adapts.init_step_sizes(theta, 0.0), "step sizes")
    return Learned(
        config,
        header["family"],
        header["reward"],
        tasks,
        sees,
        policy,
        meta,
        replace(
            base_advantage(config),
            centers=tensors.get("centers"),
            radial_columns=slice(*columns) if columns else None,
            radial_width=float(header["radial_width"]),
        ),
        exploration,
        None if header["later_lr"] is None else float(header["later_lr"]),
        int(header["env_steps"]),
        {str(name): int(steps) for name, steps in header.get("experts", {}).items()},
        Best(_meta(tensors, config, "best_"), **header["best"]) if "best" in header else None,
        str(header.get("demos", "")),
    )


def _meta(tensors: dict[str, Tensor], config: TrainConfig, prefix: str = "") -> MetaParams:
    theta = _section(tensors, f"{prefix}theta.")
    for name, value in theta.items():
        value.requires_grad_(not name.startswith(CRITIC))
    alpha = _section(tensors, f"{prefix}alpha.")
    for value in alpha.values():
        value.requires_grad_(config.learn_step_sizes)
    return MetaParams(theta, alpha)


def _section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
