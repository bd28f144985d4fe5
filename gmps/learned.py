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
from demokit.envs.vision import Vision
from demokit.errors import DemokitError
from demokit.experts import load_expert, training_of
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from demokit.learning.networks import Params
from demokit.types import Task
from gmps.adapt import InnerBatch, InnerStep
from gmps.advantage import Advantage, spread_centers
from gmps.config import TrainConfig
from gmps.critic import PREFIX as CRITIC
from gmps.critic import init_critic, learn
from gmps.demos import DemoSet
from gmps.distributed import WHOLE, Part
from gmps.exploration import Exploration, LatentBatch, LatentStep
from gmps.meta import MetaObjective, MetaParams
from gmps.policy import LATENT, AdaptSpec, GaussianPolicy
from gmps.rollout import Rollouts
from gmps.stopping import Best
from gmps.vision import Encoder

CHECKPOINT = "checkpoint.safetensors"
_NUM_CENTERS = 16
_POINT_SCALE = 3**-0.5  # of coordinates that are uniform in [-1, 1]


@dataclass(frozen=True, eq=False)
class Learned:
    """A meta-learned (or merely pre-trained) policy and how it fine-tunes.

    Attributes:
        config: the run's configuration.
        family_name, reward, tasks: what it was trained on.
        sees: "state", or the images it acts from.
        policy: the pure functions; `meta` its parameters theta and step sizes alpha. MultiTask
            Imitation has no learned step sizes: `meta.step_sizes` is empty.
        advantage: the estimator of the inner loop.
        exploration: the latents that roll-outs follow; None where they sample from the policy.
        later_lr: scalar step size of every step without learned step sizes; None until it has
            been chosen on training tasks.
        env_steps: environment steps spent so far: demonstrations, and roll-outs.
        experts: hash of each trained expert that demonstrated or answered queries -> environment
            steps of its training, which come on top.
        best: the best parameters so far, of training that stops early.
    """

    config: TrainConfig
    family_name: str
    reward: str
    tasks: tuple[Task, ...]
    sees: str | Vision
    policy: GaussianPolicy
    meta: MetaParams
    advantage: Advantage
    exploration: Exploration | None = None
    later_lr: float | None = None
    env_steps: int = 0
    experts: Mapping[str, int] = field(default_factory=dict)
    best: Best | None = None

    def to(self, device: torch.device) -> Learned:
        """The same on a device, with fresh leaves; latents are drawn on the CPU all the same."""
        policy, centers = self.policy, self.advantage.centers
        return replace(
            self,
            policy=replace(
                policy,
                feature_mean=policy.feature_mean.to(device),
                feature_scale=policy.feature_scale.to(device),
            ),
            meta=self.meta.copied(device),
            advantage=replace(
                self.advantage, centers=centers if centers is None else centers.to(device)
            ),
            best=self.best and self.best._replace(meta=self.best.meta.copied(device)),
        )

    def judged(self, score: float) -> Learned:
        """After an evaluation in training, with the best parameters so far, if they are kept."""
        if not self.config.patience:
            return self
        return replace(self, best=Best.of(self.best, self.meta, score))

    @property
    def has_stopped(self) -> bool:
        """Whether training has waited long enough for better parameters."""
        return self.best is not None and self.best.waited >= self.config.patience

    def at_best(self) -> Learned:
        """With the best parameters in place of the last."""
        return self if self.best is None else replace(self, meta=self.best.meta, best=None)

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
            places = self.exploration.of(tasks).to(self.meta.theta[LATENT].device)
        return MetaObjective(
            self.policy,
            self.inner,
            config.outer_loss,
            config.pre_update_weight if places is None else config.expert_weight,
            places,
            config.precision == "bf16",
            config.post_weight,
            config.place_weight,
        )

    def latents(
        self,
        params: Params,
        num_rollouts: int,
        step: int,
        rng: np.random.Generator,
        part: Part = WHOLE,
    ) -> Tensor | None:
        """What K roll-outs of params (M, ...) follow before adaptation step 0, 1, ...

        M counts the tasks of `part`; numbers are drawn for all of them, on the CPU.
        """
        if self.exploration is None:
            return None
        centers = part.spread(params[LATENT].cpu())
        drawn = self.exploration.latents(centers, num_rollouts, step, rng)
        return drawn[part.own].to(params[LATENT].device)

    def inner_batch(self, rollouts: Rollouts) -> InnerBatch | LatentBatch:
        """What the inner step sees of the roll-outs, with a leading axis M."""
        if self.exploration is None:
            return rollouts.inner_batch(self.advantages(rollouts))
        latent, score = self._scored(rollouts)
        if self.config.critic:
            return self.exploration.by_critic(self.meta.theta, latent, score)
        return self.exploration.by_score(latent, score)

    def learn_critic(self, rollouts: Rollouts, part: Part = WHOLE) -> None:
        """What roll-outs of theta on the training tasks teach the critic of latents, if any."""
        if self.exploration is None or not self.config.critic:
            return
        latent, score = (part.gathered(own) for own in self._scored(rollouts))
        place = self.exploration.of(self.tasks).to(latent.device)[:, None].expand_as(latent)
        latent = latent - self.meta.theta[LATENT].detach()
        learn(self.meta.theta, latent.flatten(0, 1), place.flatten(0, 1), score.flatten())

    def _scored(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """Latents (M, E, Z) of all segments of all roll-outs, and what they were paid (M, E)."""
        assert self.exploration is not None
        score = self.exploration.score(rollouts.reward * rollouts.alive)
        return rollouts.latent.flatten(1, 2), score

    def encoded(self, rollouts: Rollouts) -> Rollouts:
        """The roll-outs with features in place of observations."""
        features = self.policy.encode(self.meta.theta, rollouts.observation)
        return replace(rollouts, observation=features)

    @torch.no_grad()
    def advantages(self, rollouts: Rollouts) -> Tensor:
        """Advantages (M, K, T) for the inner step."""
        features = self.policy.encode(self.meta.theta, rollouts.observation)
        seen = self.policy.baseline_features(features)
        return torch.func.vmap(self.advantage)(seen, rollouts.reward, rollouts.alive)


def start(config: TrainConfig, demos: DemoSet) -> Learned:
    """Before training: fresh parameters, and constants taken from the demonstrations."""
    mean, scale = _statistics(config, demos)
    exploration = _exploration(config, demos.tasks, demos.segments()) if _explores(config) else None
    acts, sees = demos.action.shape[-1], demos.sees
    policy = _policy(config, demos.family.name, sees, acts, mean, scale, exploration)
    rng = torch.Generator().manual_seed(config.seed)
    theta = policy.init(rng)
    if exploration is not None:
        theta[LATENT] = torch.zeros_like(theta[LATENT])
    inner_lr = 1.0 if exploration else config.inner_lr  # 1: to the weighted mean of the latents
    alpha = _spec(config, theta).init_step_sizes(theta, inner_lr) if _is_meta(config) else {}
    for tensor in theta.values():
        tensor.requires_grad_(True)
    for tensor in alpha.values():
        tensor.requires_grad_(config.learn_step_sizes)
    if exploration is not None and config.critic:
        theta |= init_critic(rng, len(theta[LATENT]))
    return Learned(
        config,
        demos.family.name,
        demos.reward,
        demos.tasks,
        demos.sees,
        policy,
        MetaParams(theta, alpha),
        _advantage(config, demos, policy),
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
    columns, images = header["radial_columns"], header.get("vision")
    sees = Vision(**{**images, "cameras": tuple(images["cameras"])}) if images else "state"
    tasks = tuple(Task(**{**task, "context": tuple(task["context"])}) for task in header["tasks"])
    explores = _explores(config)
    exploration = _exploration(config, tasks, header["segments"]) if explores else None
    return Learned(
        config,
        header["family"],
        header["reward"],
        tasks,
        sees,
        _policy(
            config,
            header["family"],
            sees,
            tensors["theta.log_std"].shape[0],
            tensors["observation_mean"],
            tensors["observation_scale"],
            exploration,
        ),
        _meta(tensors, config),
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
        Best(_meta(tensors, config, "best_"), **header["best"]) if "best" in header else None,
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


def _is_meta(config: TrainConfig) -> bool:
    return config.method == "gmps"


def _explores(config: TrainConfig) -> bool:
    return _is_meta(config) and config.explore == "latent"


def _spec(config: TrainConfig, theta: Params) -> AdaptSpec:
    """The latent adapts, or what `of_policy` says."""
    return AdaptSpec((LATENT,)) if _explores(config) else AdaptSpec.of_policy(theta)


def _exploration(config: TrainConfig, tasks: Sequence[Task], segments: int) -> Exploration:
    return Exploration.over(tasks, segments, config.temperature)


def _policy(
    config: TrainConfig,
    family: str,
    sees: str | Vision,
    action_width: int,
    mean: Tensor,
    scale: Tensor,
    exploration: Exploration | None,
) -> GaussianPolicy:
    """The policy whose features have this mean and scale (F,)."""
    width = config.bias_transform_width if exploration is None else exploration.places.shape[1]
    encoder, place_width = None, 0
    if isinstance(sees, Vision):
        encoder = _encoder(sees, make_family(family))
        vectors = [term for term in make_family(family).terms if term.name in encoder.vectors]
        place_width = len(mean) - encoder.num_points - sum(term.width for term in vectors)
    return GaussianPolicy(
        mean,
        scale,
        action_width,
        config.hidden_width,
        width,
        config.initial_std,
        config.min_std,
        encoder,
        place_width,
    )


def _encoder(sees: Vision, family: Family) -> Encoder:
    return Encoder(tuple(sees.image_names().values()), family.vision_terms)


def _statistics(config: TrainConfig, demos: DemoSet) -> tuple[Tensor, Tensor]:
    """Mean and scale (F,) of the features; points in images have those of uniform ones."""
    if isinstance(demos.observation, Tensor):
        return demos.statistics(demos.observation)
    assert isinstance(demos.sees, Vision)
    encoder = _encoder(demos.sees, demos.family)
    parts = [(torch.zeros(encoder.num_points), torch.full((encoder.num_points,), _POINT_SCALE))]
    parts += [demos.statistics(demos.observation[key]) for key in encoder.vectors]
    if config.place_weight:
        mean, scale = demos.statistics(demos.place)
        # One scale for all axes: where the object never moves there is nothing to see.
        parts.append((mean, scale.max().expand_as(scale)))
    means, scales = zip(*parts, strict=True)
    return torch.cat(means), torch.cat(scales)


def _base_advantage(config: TrainConfig) -> Advantage:
    return Advantage(config.discount, config.gae_lambda, config.baseline)


def _advantage(config: TrainConfig, demos: DemoSet, policy: GaussianPolicy) -> Advantage:
    """The estimator; radial centres spread over where the demonstrations moved the object."""
    if config.baseline != "radial":
        return _base_advantage(config)
    places = demos.place[demos.alive]
    centers, width = spread_centers(places, _NUM_CENTERS)
    columns = _radial_columns(demos, policy)
    return replace(
        _base_advantage(config), centers=centers, radial_columns=columns, radial_width=width
    )


def _radial_columns(demos: DemoSet, policy: GaussianPolicy) -> slice:
    """The columns of the baseline's features that say where the object is."""
    if policy.encoder is None:
        return demos.object_columns()
    if not policy.place_width:
        raise DemokitError("A radial baseline of images needs a place_weight above 0.")
    first = policy.place_columns.start - policy.encoder.num_points
    return slice(first, first + policy.place_width)
