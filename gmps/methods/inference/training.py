"""Learning the task space and the models of tasks, from demonstrations and roll-outs of them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from demokit.learning.checkpoint import check_state, check_tensors
from demokit.learning.networks import Params
from demokit.random import torch_stream
from gmps.experience.rollouts import Rollouts
from gmps.experience.transitions import Transitions, between, flat, joined, none_met
from gmps.method import Iteration
from gmps.methods.inference.actor import Eyes, PlannedActor
from gmps.methods.inference.learner import TaskInference
from gmps.methods.inference.models import Ensemble, Models, fit
from gmps.methods.inference.options import InferenceOptions
from gmps.methods.inference.policy import (
    LEAST_STD,
    Shown,
    first_guess,
    learn,
    spread,
    unexplained,
)
from gmps.methods.inference.posterior import PRIOR_STD
from gmps.methods.inference.space import TaskSpace
from gmps.policies.encoder import PREFIX
from gmps.policies.gaussian import AdaptSpec, GaussianPolicy
from gmps.policies.meta_params import MetaParams, section
from gmps.policies.standard import demo_statistics, make_policy, require_params, statistics_of
from gmps.problem import Problem, Training
from gmps.progress import DIMENSIONS, IMITATION, unheard
from gmps.steps.imitation import pretrain

if TYPE_CHECKING:
    from gmps.experience.sampler import Sampler

_ROLLOUT_STD = 0.1
_WIDE, _OTHER = 0.4, 0.8  # shares of codes from the prior; from it or of other tasks; the rest: own
_OTHER_STD, _OWN_STD = 0.2, 0.3
_TURNING = 0.4  # share of episodes that change their code
_FIRST_WIDTH = 4  # before it is known in how many ways tasks differ
_WIDTHS = (1, 2, 3, 4, 6, 8)
_FEWER = 3  # so many times fewer steps judge a width than learn the space


def start(training: Training[InferenceOptions]) -> TaskInference:
    """Fresh parameters, and no models yet."""
    options, problem = training.options, training.problem
    problem.require_transitions()
    statistics = demo_statistics(training.demonstrations, options.object_weight)
    width = options.latent_width or _FIRST_WIDTH
    policy = make_policy(options, problem.schema, problem.sees, statistics, width)
    theta = policy.init(torch_stream(options.seed, "theta"))
    eyes = Eyes(policy, theta)
    shown, guess = _shown(training, eyes)
    space, state = TaskSpace.of(guess[:, :width]), eyes.modelled(shown.features).shape[-1]
    rng = torch_stream(options.seed, "models")
    actions = len(problem.schema.actions)
    models = Models.fresh(state, actions, space.width, rng)
    variance = torch.full((actions,), LEAST_STD**2)
    return TaskInference(policy, theta, space, models, variance, problem.schema.horizon, options)


def train(
    training: Training[InferenceOptions],
    learner: TaskInference,
    state: Mapping[str, Tensor],
    first: int,
) -> Generator[Iteration]:
    """Rounds: policy and latents from demonstrations and all roll-outs so far, then roll-outs.

    The first round knows demonstrations only.
    """
    options = training.options
    if first == 0:
        learner = replace(learner, theta=_seeing(training, learner.policy, learner.theta))
    shown, guess = _shown(training, learner.eyes)
    met = _met_before(training, learner, section(state, "met.")) if state else None
    with training.sampler(explore=options.training_rollouts) as sampler:
        for iteration in range(first, options.iterations):
            if met and iteration == 1 and not options.latent_width:
                learner = _as_wide(learner, _chosen_width(training, learner, shown, guess, met))
            learner, loss = _learned(training, learner, shown, guess, met, iteration)
            now, tried = _explored(training, sampler, learner, iteration)
            met = joined(met, now) if met else now
            learner = replace(learner, models=_models(training, learner.space, met, tried))
            state = {f"met.{name}": value for name, value in met._asdict().items()}
            scalars = {"loss": loss, "width": float(learner.space.width)}
            yield Iteration(learner, scalars, sampler.num_steps, state)


def _met_before(
    training: Training[InferenceOptions], learner: TaskInference, found: dict[str, Tensor]
) -> Transitions:
    """What earlier rounds met; raises DemokitError where a checkpoint does not say it."""
    state = len(learner.eyes.modelled(learner.policy.feature_mean))
    num = found["weight"].shape[1] if found.get("weight", torch.zeros(())).ndim == 2 else 0

    def wanted() -> dict[str, Tensor]:
        tasks, action = len(training.problem.tasks), learner.policy.action_width
        return none_met((tasks, num), state, action)._asdict()

    check_state(found, wanted)
    return Transitions(**found)


class Tried(NamedTuple):
    """Codes (M, K, R) that roll-outs followed, what they earned a step, and which (M, K) kept to
    one code: 1, else 0.
    """

    codes: Tensor
    earned: Tensor
    whole: Tensor


def load(
    problem: Problem,
    options: InferenceOptions,
    tensors: dict[str, Tensor],
    _header: dict[str, Any],
) -> TaskInference:
    """The learner of a checkpoint."""
    theta, space = section(tensors, "theta."), TaskSpace.of_tensors(section(tensors, "space."))
    width = options.latent_width or space.mean.numel()
    policy = make_policy(options, problem.schema, problem.sees, statistics_of(tensors), width)
    require_params(policy, MetaParams(theta, {}), AdaptSpec(()), step_sizes=False)
    models = Models.of_tensors(section(tensors, "models."))
    _require_shapes(policy, space, models, len(problem.tasks))
    variance = tensors["action_variance"]
    check_tensors(
        {"action_variance": variance},
        lambda: {"action_variance": torch.zeros(policy.action_width)},
        "variance of actions",
    )
    return TaskInference(policy, theta, space, models, variance, problem.schema.horizon, options)


def _require_shapes(policy: GaussianPolicy, space: TaskSpace, models: Models, tasks: int) -> None:
    """Raise ValueError unless these belong together."""
    latent, codes = policy.bias_transform_width, space.width
    state = len(policy.baseline_features(policy.feature_mean))
    action = policy.action_width

    def wanted() -> dict[str, Tensor]:
        shapes = torch.zeros(latent), torch.zeros(latent, codes), torch.zeros(tasks, codes)
        fresh = Models.fresh(state, action, codes, torch.Generator())
        return {**TaskSpace(*shapes).tensors(), **fresh.tensors()}

    check_tensors({**space.tensors(), **models.tensors()}, wanted, "models of tasks")


def _seeing(training: Training[InferenceOptions], policy: GaussianPolicy, theta: Params) -> Params:
    """After imitation of everything by one policy, where there are eyes to teach."""
    if policy.encoder is None:
        return theta
    meta = MetaParams(theta, {}).learnable()
    optimizer = torch.optim.Adam(meta.leaves(), lr=training.options.outer_lr)
    return pretrain(training, policy, meta, optimizer).theta


@torch.no_grad()
def _shown(training: Training[InferenceOptions], eyes: Eyes) -> tuple[Shown, Tensor]:
    """The demonstrations as features, and a first guess of latents, the most telling first."""
    demos = training.demonstrations.all()
    shown = Shown(eyes.features(demos.observation), demos.action, demos.weight)
    standard = eyes.policy.standardised(shown.features)
    width = training.options.latent_width or max(_FIRST_WIDTH, *_WIDTHS)
    return shown, first_guess(standard, *shown[1:], width)


def _as_wide(learner: TaskInference, width: int) -> TaskInference:
    """One whose policy takes latents of that width, to be learned anew."""
    return replace(learner, policy=replace(learner.policy, bias_transform_width=width))


def _chosen_width(
    training: Training[InferenceOptions],
    learner: TaskInference,
    shown: Shown,
    guess: Tensor,
    met: Transitions,
) -> int:
    """Dimensions in which tasks differ: with as many, left-out ones are predicted best.

    With fewer, codes do not tell tasks apart; with more, models hold on to what is chance. All are
    tried on the same left-out tasks, for these differ more than the numbers do.
    """
    options, fewer = training.options, training.options.steps // _FEWER or 1
    short = replace(training, options=replace(options, steps=fewer), report=unheard)
    errors: dict[int, float] = {}
    for tried, width in enumerate(_WIDTHS):
        training.report(DIMENSIONS, tried, len(_WIDTHS))
        found, _ = _learned(short, _as_wide(learner, width), shown, guess, met, 1)
        codes = found.space.codes
        fitted = (
            fit(*what, codes, met.weight, steps=(fewer, 0), rng=torch_stream(options.seed, "width"))
            for what in (met.paid(), met.moved())
        )
        errors[width] = sum(float(each.variance.log().sum()) for each in fitted)
    training.report(DIMENSIONS, len(_WIDTHS), len(_WIDTHS))
    return min(errors, key=errors.__getitem__)


def _learned(
    training: Training[InferenceOptions],
    learner: TaskInference,
    shown: Shown,
    guess: Tensor,
    met: Transitions | None,
    iteration: int,
) -> tuple[TaskInference, float]:
    """Policy and task space, learned anew."""
    options = training.options
    rng = torch_stream(options.seed, "latents", iteration)
    eyes = {n: value for n, value in learner.theta.items() if n.startswith(PREFIX)}
    theta = {**learner.policy.init(rng), **eyes}

    def report(step: int) -> None:
        training.report(IMITATION, step, options.steps)

    first = guess[:, : learner.policy.bias_transform_width]
    theta, latents, loss = learn(learner.policy, theta, shown, first, met, options, rng, report)
    MetaParams({**theta, "latents": latents}, {}).require_finite(iteration)
    space = TaskSpace.of(latents)
    variance = unexplained(learner.policy, theta, shown, space.latent(space.codes))
    return replace(learner, theta=theta, space=space, action_variance=variance), loss


def _explored(
    training: Training[InferenceOptions],
    sampler: Sampler,
    learner: TaskInference,
    iteration: int,
) -> tuple[Transitions, Tried]:
    """What roll-outs of all training tasks met, and how they were tried."""
    rngs = sampler.streams(training.stream("iteration", iteration))
    own = learner.space.codes[training.part.own]
    drawn = [
        _drawn(learner.space, code, sampler.explore, rng)
        for code, rng in zip(own, rngs, strict=True)
    ]
    codes = torch.stack(drawn)
    turns = np.stack([_turns(sampler.horizon, sampler.explore, rng) for rng in rngs])
    starts = torch.from_numpy(np.stack((np.zeros_like(turns), turns), -1))
    actor = PlannedActor(learner.eyes, learner.space.latent(codes), starts, _ROLLOUT_STD)
    (rollouts, _, _), _ = sampler(actor, rngs)
    whole = torch.from_numpy(turns >= sampler.horizon).float()
    gathered = training.part.gathered
    tried = Tried(codes[:, :, 0], rollouts.reward.mean(-1), whole)
    met = flat(_transitions(learner.eyes, rollouts))
    return Transitions(*map(gathered, met)), Tried(*map(gathered, tried))


def _drawn(space: TaskSpace, own: Tensor, num: int, rng: np.random.Generator) -> Tensor:
    """Two codes for each of `num` roll-outs of a task: (K, 2, R)."""
    kind = torch.from_numpy(rng.random((num, 2, 1)).astype(np.float32))
    other = space.codes[torch.from_numpy(rng.integers(len(space.codes), size=(num, 2)))]
    wide = PRIOR_STD * spread(rng, num, 2, space.width)
    other = other + _OTHER_STD * spread(rng, num, 2, space.width)
    own = own + _OWN_STD * spread(rng, num, 2, space.width)
    return torch.where(kind < _WIDE, wide, torch.where(kind < _OTHER, other, own))


def _turns(horizon: int, num: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """The step at which each roll-out (K,) turns to its second code; the horizon: never."""
    steps = rng.integers(1, horizon, size=num)
    return np.where(rng.random(num) < _TURNING, steps, horizon)


@torch.no_grad()
def _transitions(eyes: Eyes, rollouts: Rollouts) -> Transitions:
    """Of roll-outs (M, K, T, ...): (M, K, T - 1, ...)."""
    states = eyes.modelled(eyes.features(rollouts.observation))
    return between(states, rollouts.action, rollouts.reward, rollouts.alive)


def _models(
    training: Training[InferenceOptions],
    space: TaskSpace,
    met: Transitions,
    tried: Tried,
) -> Models:
    """Fitted to all that was met, and to what the last roll-outs earned."""
    options, seed = training.options, training.options.seed
    codes, num = space.codes, options.model_steps
    steps = num, 0 if options.leave_out else num

    def fitted(what: str, x: Tensor, y: Tensor, weight: Tensor) -> Ensemble:
        return fit(x, y, codes, weight, steps=steps, rng=torch_stream(seed, what))

    return Models(
        fitted("rewards", *met.paid(), met.weight),
        fitted("changes", *met.moved(), met.weight),
        fitted("values", tried.codes, tried.earned[..., None], tried.whole),
    )
