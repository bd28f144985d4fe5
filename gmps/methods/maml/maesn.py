"""MAESN: roll-outs explore by a latent that is drawn once for each, and the latent adapts.

Source: Gupta et al., 2018, and their release (github RussellM2020/maesn_suite). Every training task
has a Gaussian over latents, learned with the policy; a new task begins at the prior. Where we leave
them: returns are centred and scaled over a task's roll-outs without a baseline, for one that sees
the start alone explains little of them.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from demokit.learning.checkpoint import check_tensors
from demokit.learning.distributions import Gaussian
from demokit.learning.networks import Params
from demokit.random import torch_stream
from gmps.distributed import Part
from gmps.experience.rollouts import Gathered, Rollouts
from gmps.method import Iteration
from gmps.methods.maml.algorithm import paid_in
from gmps.methods.maml.learner import policy_of
from gmps.methods.maml.objective import OverTasks, Stage
from gmps.methods.maml.options import MAESNOptions
from gmps.policies.gaussian import LATENT, GaussianActor, GaussianPolicy, replicate
from gmps.policies.meta_params import section
from gmps.policies.standard import policy_tensors, statistics_of
from gmps.problem import Problem, Training
from gmps.steps.advantage import Advantage
from gmps.steps.inner import InnerBatch
from gmps.steps.losses import discounted_returns
from gmps.steps.ppo import clipped_surrogate
from gmps.steps.trust_region import Judged, Product, kl_product, mean_kl

_PARAMS, _TASKS, _STEPS = "params.", "tasks.", "steps."


class Belief(NamedTuple):
    """Gaussians over the latents of M tasks, (M, Z) each."""

    mean: Tensor
    log_std: Tensor

    def latents(self, noise: Tensor) -> Tensor:
        """Latents (M, K, Z) from standard normal noise of that shape."""
        return self.mean[:, None] + self.log_std.exp()[:, None] * noise


def adapted(belief: Belief, step_sizes: Belief, latents: Tensor, score: Tensor) -> Belief:
    r"""$(\mu, \log\sigma) + \alpha \nabla mean_k [ \log N(z_k; \mu, \sigma) A_k ]$, written out.

    Args:
        belief: mu and log sigma.
        step_sizes: alpha of either, (Z,).
        latents: z (M, K, Z), under which the roll-outs were.
        score: A (M, K), what they were paid.
    """
    std = belief.log_std.exp()[:, None]
    off = (latents - belief.mean[:, None]) / std
    mean = (score[..., None] * off / std).mean(1)
    log_std = (score[..., None] * (off.square() - 1)).mean(1)
    return Belief(
        belief.mean + step_sizes.mean * mean, belief.log_std + step_sizes.log_std * log_std
    )


def prior_kl(belief: Belief) -> Tensor:
    """KL(N(mu, sigma) || N(0, 1)), (M,): summed over the latent's dimensions."""
    squares = (2 * belief.log_std).exp() + belief.mean.square() - 1
    kl: Tensor = (0.5 * squares - belief.log_std).sum(-1)
    return kl


@dataclass(frozen=True, eq=False)
class MAESN:
    """Acts under latents, which stand for the policy's bias transformation.

    Its belief about a task is a Gaussian over latents; theta never adapts.

    Attributes:
        policy: the pure functions.
        params: theta; "tasks.mean", "tasks.log_std" (N, Z) of the training tasks' latents;
            "steps.mean", "steps.log_std" (Z,), the step sizes.
        episodes_per_step: K.
        discount: of what roll-outs are paid.
        later_decay: factor on the step sizes after every step.
        scale: factor on all of them.
    """

    policy: GaussianPolicy
    params: Params
    episodes_per_step: int
    discount: float
    later_decay: float
    scale: float = 1.0

    @property
    def theta(self) -> Params:
        """The policy's parameters, but for the latent."""
        return {n: v for n, v in self.params.items() if not n.startswith((_TASKS, _STEPS))}

    def with_params(self, params: Params) -> Self:
        """The same with other parameters."""
        return replace(self, params=params)

    def scaled(self, factor: float) -> Self:
        """See `HasStepScale`."""
        return replace(self, scale=self.scale * factor)

    def begin(self, num_tasks: int) -> Belief:
        """The prior."""
        zeros = torch.zeros_like(self.params[f"{_STEPS}mean"]).expand(num_tasks, -1)
        return Belief(zeros, zeros)

    def explorer(
        self, belief: Belief, step: int, num: int, rngs: Sequence[np.random.Generator]
    ) -> GaussianActor:
        """The policy under a latent for each roll-out."""
        width = belief.mean.shape[1]
        drawn = np.stack([rng.standard_normal((num, width), np.float32) for rng in rngs])
        return self._under(belief.latents(torch.from_numpy(drawn).to(belief.mean.device)))

    def exploiter(self, belief: Belief, num: int) -> GaussianActor:
        """The policy under the mean latent."""
        return self._under(belief.mean[:, None].expand(-1, num, -1))

    def adapt(self, belief: Belief, step: int, gathered: Rollouts, memory: Tensor) -> Belief:
        """A policy-gradient step on the Gaussians of the latents that were followed."""
        factor = self.scale * self.later_decay**step
        alpha = Belief(*(factor * size for size in _pair(self.params, _STEPS)))
        return adapted(belief, alpha, memory[:, :, 0], self.score(gathered))

    def score(self, rollouts: Rollouts) -> Tensor:
        """Discounted returns (M, K), centred and scaled over each task's roll-outs."""
        paid = discounted_returns(rollouts.reward.double(), self.discount)[..., 0]
        off = paid - paid.mean(1, keepdim=True)
        scaled = off / (off.square().mean(1, keepdim=True).sqrt() + 1e-8)
        return scaled.to(rollouts.reward.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """See `MetaLearner`."""
        own = {f"{_PARAMS}{name}": value for name, value in self.params.items()}
        return {**own, **policy_tensors(self.policy)}

    def header(self) -> dict[str, Any]:
        """See `MetaLearner`."""
        return {}

    def to(self, device: torch.device) -> Self:
        """See `MetaLearner`."""
        params = {name: value.to(device) for name, value in self.params.items()}
        return replace(self, policy=self.policy.to(device), params=params)

    def _under(self, latents: Tensor) -> GaussianActor:
        return GaussianActor(self.policy, replicate(self.theta, len(latents)), latents[:, :, None])


def _pair(params: Params, prefix: str) -> Belief:
    return Belief(params[f"{prefix}mean"], params[f"{prefix}log_std"])


@dataclass(frozen=True, eq=False)
class LatentSurrogate:
    r"""$mean_i [ - mean_t r_t A'_t + w KL(N(\mu_i, \sigma_i) \| N(0, 1)) ]$ over some tasks.

    r is the ratio of actions under the adapted latents z' = mu' + sigma' epsilon, whose epsilon
    stays as it was drawn: theta, the tasks' Gaussians and the step sizes all learn; `Surrogate`.

    Attributes:
        policy: the pure functions.
        tasks: which training tasks, (M,).
        latents, score: of the roll-outs before adaptation, (M, K, Z) and (M, K).
        noise: epsilon (M, K, Z) of those behind it.
        after: those.
        prior_weight: w.
        old: the policies that sampled them.
    """

    policy: GaussianPolicy
    tasks: Tensor
    latents: Tensor
    score: Tensor
    noise: Tensor
    after: Stage
    prior_weight: float
    old: Gaussian | None = None

    def at(self, params: Params) -> LatentSurrogate:
        """The same, of what these parameters have sampled."""
        with torch.no_grad():
            return replace(self, old=self.acting(params))

    def loss(self, theta: Params) -> Tensor:
        """See the class."""
        return self._of(theta, self.acting(theta))

    def judged(self, theta: Params) -> Judged:
        """See `Surrogate`."""
        assert self.old is not None
        acting = self.acting(theta)
        kl = mean_kl(self.old, acting, self.after.weight)
        return Judged(self._of(theta, acting), kl, kl.new_zeros(0))

    def kl_product(self, theta: Params) -> Product:
        """See `Surrogate`."""
        return kl_product(self.acting, theta, self.after.weight)

    def acting(self, params: Params) -> Gaussian:
        """The policies under the adapted latents, at the states they visited, (M, S, A)."""
        belief, step_sizes = self._belief(params), _pair(params, _STEPS)
        latents = adapted(belief, step_sizes, self.latents, self.score).latents(self.noise)
        theta = {n: v for n, v in params.items() if not n.startswith((_TASKS, _STEPS))}
        seen = self.after.seen.observation
        assert isinstance(seen, Tensor)
        by_rollout = seen.reshape(*latents.shape[:2], -1, seen.shape[-1])

        def mean(latent: Tensor, own: Tensor) -> Tensor:
            return self.policy.dist({**theta, LATENT: latent}, own).mean

        means = torch.func.vmap(torch.func.vmap(mean))(latents, by_rollout)
        return Gaussian(means.flatten(1, 2), self.policy.std(theta))

    def _of(self, params: Params, acting: Gaussian) -> Tensor:
        seen = self.after.seen
        log_prob = acting.log_prob(seen.action)
        earned = clipped_surrogate(log_prob, seen.behaviour_log_prob, seen.advantage)
        return earned + self.prior_weight * prior_kl(self._belief(params)).mean()

    def _belief(self, params: Params) -> Belief:
        return Belief(*(part[self.tasks] for part in _pair(params, _TASKS)))


def train(
    training: Training[MAESNOptions], learner: MAESN, _state: Mapping[str, Tensor], first: int
) -> Generator[Iteration]:
    """Meta-train, an iteration at a time: Algorithm 1 of MAESN, its steps in words."""
    options = training.options
    for iteration in range(first, options.iterations):
        rng = training.stream("iteration", iteration)
        chosen = training.some_tasks(rng, options.meta_batch)  # a batch of tasks
        with training.sampler_of(chosen, explore=options.rollouts_per_task) as sampler:
            own = torch.tensor(chosen, device=training.device)[sampler.part.own]
            # Roll-outs under latents of each task's Gaussian, and a step on it.
            belief = Belief(*(part[own] for part in _pair(learner.params, _TASKS)))
            rngs = sampler.streams(rng)
            before = sampler(learner.explorer(belief, 0, sampler.explore, rngs), rngs).explored
            moved = learner.adapt(belief, 0, before.rollouts, before.memory)
            # Roll-outs under latents of the adapted Gaussians.
            rngs = sampler.streams(rng)
            after = sampler(learner.explorer(moved, 1, sampler.explore, rngs), rngs).explored
        # TRPO on policy, Gaussians and step sizes, through the inner step.
        objective = _objective(learner, options, own, before, after, moved, sampler.part)
        old = objective.judged(learner.params)
        taken = objective.step(learner.params, options.region)
        learner = learner.with_params({n: v.detach() for n, v in taken.params.items()})
        scalars = {
            "loss_before": float(old.loss),
            "loss_after": float(taken.judged.loss),
            "kl": float(taken.judged.kl),
            "step_share": taken.length,
            **paid_in((before, after), sampler.part),
            "latent_std": float(learner.params[f"{_TASKS}log_std"].exp().mean()),
        }
        yield Iteration(learner, scalars, 2 * sampler.num_steps, {})


def _objective(
    learner: MAESN,
    options: MAESNOptions,
    own: Tensor,
    before: Gathered,
    after: Gathered,
    moved: Belief,
    part: Part,
) -> OverTasks:
    """Of roll-outs under the tasks' Gaussians, and under those that were adapted to them."""
    score, followed = learner.score(before.rollouts), before.memory[:, :, 0]
    noise = (after.memory[:, :, 0] - moved.mean[:, None]) / moved.log_std.exp()[:, None]
    rolled = after.rollouts
    estimator = Advantage(options.discount, options.gae_lambda, options.baseline)
    seen = learner.policy.encode(learner.params, rolled.observation)
    advantage = torch.func.vmap(estimator)(seen, rolled.reward, rolled.alive)
    stage = Stage.of(rolled, InnerBatch.of(rolled, advantage))

    def of_some(some: slice) -> LatentSurrogate:
        return LatentSurrogate(
            learner.policy,
            own[some],
            followed[some],
            score[some],
            noise[some],
            stage.rows(some),
            options.prior_weight,
        ).at(learner.params)

    return OverTasks.of(of_some, stage.weight, part)


def start(training: Training[MAESNOptions]) -> MAESN:
    """Fresh parameters; the training tasks' mean latents are drawn from the prior."""
    options, problem = training.options, training.problem
    problem.require_states()
    training.require_batch(options.meta_batch)
    zeros = torch.zeros(problem.schema.width)
    policy = policy_of(options, problem, (zeros, zeros + 1), options.latent_width)
    params = _fresh(policy, options, len(problem.tasks), torch_stream(options.seed, "theta"))
    del params[LATENT]
    return _learner(options, policy, params)


def load(
    problem: Problem, options: MAESNOptions, tensors: dict[str, Tensor], _header: dict[str, Any]
) -> MAESN:
    """The learner of a checkpoint."""
    policy = policy_of(options, problem, statistics_of(tensors), options.latent_width)
    params, num = section(tensors, _PARAMS), len(problem.tasks)
    whole = {**params, LATENT: params[f"{_STEPS}mean"]}  # of its shape
    check_tensors(whole, lambda: _fresh(policy, options, num, None), "parameters")
    return _learner(options, policy, params)


def _fresh(
    policy: GaussianPolicy, options: MAESNOptions, num_tasks: int, rng: torch.Generator | None
) -> Params:
    """All parameters, and the bias transformation for which latents stand."""
    shape, width = (num_tasks, options.latent_width), (options.latent_width,)
    return {
        **policy.init(rng),
        f"{_TASKS}mean": torch.randn(shape, generator=rng),
        f"{_TASKS}log_std": torch.zeros(shape),
        f"{_STEPS}mean": torch.full(width, options.inner_lr),
        f"{_STEPS}log_std": torch.full(width, options.inner_lr),
    }


def _learner(options: MAESNOptions, policy: GaussianPolicy, params: Params) -> MAESN:
    num, discount = options.rollouts_per_task, options.discount
    return MAESN(policy, params, num, discount, options.later_decay)
