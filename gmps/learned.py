"""What training leaves: a policy that can adapt, and everything needed to go on or to judge it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demokit.envs import make_family
from demokit.envs.family import Family
from demokit.errors import DemokitError
from demokit.experts import load_expert, training_of
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from demokit.learning.networks import Params
from demokit.types import Task
from gmps.adapt import InnerBatch, InnerStep
from gmps.advantage import Advantage, spread_centers
from gmps.config import TrainConfig
from gmps.demos import DemoSet
from gmps.exploration import Exploration, LatentBatch, LatentStep
from gmps.meta import MetaObjective, MetaParams
from gmps.policy import LATENT, AdaptSpec, GaussianPolicy
from gmps.rollout import Rollouts

CHECKPOINT = "checkpoint.safetensors"
_NUM_CENTERS = 16


@dataclass(frozen=True, eq=False)
class Learned:
    """A meta-learned (or merely pre-trained) policy and how it fine-tunes.

    Attributes:
        config: the run's configuration.
        family_name, reward, tasks: what it was trained on.
        policy: the pure functions; `meta` its parameters theta and step sizes alpha. MultiTask
            Imitation has no learned step sizes: `meta.step_sizes` is empty.
        advantage: the estimator of the inner loop.
        exploration: the latents that roll-outs follow; None where they sample from the policy.
        later_lr: scalar step size of every step without learned step sizes; None until it has
            been chosen on training tasks.
        env_steps: environment steps spent so far: demonstrations, and roll-outs.
        experts: hash of each trained expert that demonstrated or answered queries -> environment
            steps of its training, which come on top.
    """

    config: TrainConfig
    family_name: str
    reward: str
    tasks: tuple[Task, ...]
    policy: GaussianPolicy
    meta: MetaParams
    advantage: Advantage
    exploration: Exploration | None = None
    later_lr: float | None = None
    env_steps: int = 0
    experts: Mapping[str, int] = field(default_factory=dict)

    @property
    def expert_steps(self) -> int:
        """Environment steps that the training of all experts took."""
        return sum(self.experts.values())

    @property
    def family(self) -> Family:
        """The task family."""
        return make_family(self.family_name)

    @property
    def spec(self) -> AdaptSpec:
        """What adapts."""
        return _spec(self.config, self.meta.theta)

    @property
    def inner(self) -> Callable[[Params, Params, Any], Params]:
        """The inner step: theta, step sizes and what one task's roll-outs showed to phi."""
        if self.exploration is not None:
            return LatentStep()
        config = self.config
        return InnerStep(
            self.policy, self.spec, config.ratio_clip, config.ratio_gradient, config.second_order
        )

    def step_sizes(self, step: int, later_lr: float | None = None) -> dict[str, Tensor]:
        """Step sizes of adaptation step 0, 1, ...: the learned ones first, then the scalar.

        The learned ones are for theta; used again where they were not learned they diverge. The
        scalar shrinks by `later_decay` with every step that takes it.
        """
        if self.meta.step_sizes and (step == 0 or self.exploration is not None):
            return self.meta.step_sizes
        scalar = self.later_lr if later_lr is None else later_lr
        if scalar is None:
            raise DemokitError("This run has no step size yet: let meta-train finish (--resume).")
        taken = step - bool(self.meta.step_sizes)
        scalar *= self.config.later_decay**taken
        return self.spec.init_step_sizes(self.meta.theta, scalar)

    def objective(self, tasks: Sequence[Task]) -> MetaObjective:
        """The meta-objective over these training tasks."""
        config, places = self.config, None
        if self.exploration is not None:
            places = self.exploration.of(tasks)
        return MetaObjective(
            self.policy,
            self.inner,
            config.outer_loss,
            config.pre_update_weight if places is None else config.expert_weight,
            places,
            config.precision == "bf16",
            config.post_weight,
        )

    def latents(
        self, params: Params, num_rollouts: int, step: int, rng: np.random.Generator
    ) -> Tensor | None:
        """What K roll-outs of params (M, ...) follow before adaptation step 0, 1, ..."""
        if self.exploration is None:
            return None
        return self.exploration.latents(params[LATENT], num_rollouts, step, rng)

    def inner_batch(self, rollouts: Rollouts) -> InnerBatch | LatentBatch:
        """What the inner step sees of the roll-outs, with a leading axis M."""
        if self.exploration is None:
            return rollouts.inner_batch(self.advantage)
        return self.exploration.batch(rollouts.latent, rollouts.reward, rollouts.alive)


def start(config: TrainConfig, demos: DemoSet) -> Learned:
    """Before training: fresh parameters, and constants taken from the demonstrations."""
    mean, scale = demos.statistics()
    exploration = _exploration(config, demos.tasks, demos.segments()) if _explores(config) else None
    policy = _policy(config, mean, scale, demos.action.shape[-1], exploration)
    theta = policy.init(torch.Generator().manual_seed(config.seed))
    if exploration is not None:
        theta[LATENT] = torch.zeros_like(theta[LATENT])
    inner_lr = 1.0 if exploration else config.inner_lr  # 1: to the weighted mean of the latents
    alpha = _spec(config, theta).init_step_sizes(theta, inner_lr) if _is_meta(config) else {}
    for tensor in theta.values():
        tensor.requires_grad_(True)
    for tensor in alpha.values():
        tensor.requires_grad_(config.learn_step_sizes)
    return Learned(
        config,
        demos.family.name,
        demos.reward,
        demos.tasks,
        policy,
        MetaParams(theta, alpha),
        _advantage(config, demos),
        exploration,
        env_steps=demos.num_steps,
        experts={**demos.experts, **_queried(config, demos.family.name)},
    )


def _queried(config: TrainConfig, family_name: str) -> dict[str, int]:
    """The trained expert that answers the queries of DAgger, if there is one."""
    training = training_of(load_expert(config.expert, family_name)) if config.dagger else {}
    return {training["sha256"]: training["env_steps"]} if training else {}


def save(path: Path, learned: Learned, extra: dict[str, Tensor], progress: dict[str, Any]) -> None:
    """Write a checkpoint; `extra` (the optimiser) and `progress` come back from `load`."""
    tensors = {
        **{f"theta.{name}": value for name, value in learned.meta.theta.items()},
        **{f"alpha.{name}": value for name, value in learned.meta.step_sizes.items()},
        **{f"extra.{name}": value for name, value in extra.items()},
        "observation_mean": learned.policy.observation_mean,
        "observation_scale": learned.policy.observation_scale,
    }
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
        "radial_columns": [columns.start, columns.stop] if columns else None,
        "radial_width": learned.advantage.radial_width,
        "segments": learned.exploration.segments if learned.exploration else None,
        "later_lr": learned.later_lr,
        "env_steps": learned.env_steps,
        "experts": dict(learned.experts),
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
    try:
        learned = _from_parts(tensors, header)
        extra, progress = _section(tensors, "extra."), dict(header["progress"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DemokitError(
            f"{path} was written by another version of demokit or by hand ({error}): train again."
        ) from None
    if learned.family.model_hash != header["model_hash"]:
        raise DemokitError(
            f"{path} was trained on another model of {learned.family_name}: train again."
        )
    return learned, extra, progress


def _from_parts(tensors: dict[str, Tensor], header: dict[str, Any]) -> Learned:
    config = TrainConfig(**header["config"])
    columns = header["radial_columns"]
    tasks = tuple(Task(**{**task, "context": tuple(task["context"])}) for task in header["tasks"])
    explores = _explores(config)
    exploration = _exploration(config, tasks, header["segments"]) if explores else None
    return Learned(
        config,
        header["family"],
        header["reward"],
        tasks,
        _policy(
            config,
            tensors["observation_mean"],
            tensors["observation_scale"],
            tensors["theta.log_std"].shape[0],
            exploration,
        ),
        MetaParams(
            _section(tensors, "theta.", learned=True),
            _section(tensors, "alpha.", learned=config.learn_step_sizes),
        ),
        replace(
            _base_advantage(config),
            centers=tensors.get("centers"),
            radial_columns=slice(*columns) if columns else None,
            radial_width=float(header["radial_width"]),
        ),
        exploration,
        header["later_lr"],
        int(header["env_steps"]),
        {str(name): int(steps) for name, steps in header.get("experts", {}).items()},
    )


def _section(
    tensors: dict[str, Tensor], prefix: str, *, learned: bool = False
) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value.requires_grad_(learned)
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _is_meta(config: TrainConfig) -> bool:
    return config.method == "gmps"


def _explores(config: TrainConfig) -> bool:
    return _is_meta(config) and config.explore == "latent"


def _spec(config: TrainConfig, theta: Params) -> AdaptSpec:
    """The latent adapts, or everything but the standard deviation."""
    return AdaptSpec((LATENT,)) if _explores(config) else AdaptSpec.all_but(theta, "log_std")


def _exploration(config: TrainConfig, tasks: Sequence[Task], segments: int) -> Exploration:
    return Exploration.over(tasks, segments, config.temperature)


def _policy(
    config: TrainConfig,
    mean: Tensor,
    scale: Tensor,
    action_width: int,
    exploration: Exploration | None,
) -> GaussianPolicy:
    width = config.bias_transform_width if exploration is None else exploration.places.shape[1]
    return GaussianPolicy(
        mean,
        scale,
        action_width,
        config.hidden_width,
        width,
        config.initial_std,
        config.min_std,
    )


def _base_advantage(config: TrainConfig) -> Advantage:
    return Advantage(config.discount, config.gae_lambda, config.baseline)


def _advantage(config: TrainConfig, demos: DemoSet) -> Advantage:
    """The estimator; radial centres spread over where the demonstrations moved the object."""
    if config.baseline != "radial":
        return _base_advantage(config)
    columns = demos.object_columns()
    places = demos.observation[demos.alive][:, columns]
    centers, width = spread_centers(places, _NUM_CENTERS)
    return replace(
        _base_advantage(config), centers=centers, radial_columns=columns, radial_width=width
    )
