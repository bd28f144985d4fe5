"""The meta-gradient against finite differences, in float64, for every task of a batch."""

import pytest
import torch

from gmps.adapt import InnerBatch, InnerStep
from gmps.losses import mean_weights
from gmps.meta import Demos, MetaObjective, MetaParams
from gmps.policy import AdaptSpec, GaussianPolicy

NUM_TASKS, SAMPLES, OBSERVATION, ACTION = 4, 30, 5, 2
EPSILON = 1e-6


def double(tensors):
    return {name: value.double() for name, value in tensors.items()}


@pytest.fixture
def problem():
    rng = torch.Generator().manual_seed(0)
    zeros, ones = torch.zeros(OBSERVATION).double(), torch.ones(OBSERVATION).double()
    policy = GaussianPolicy(zeros, ones, ACTION, hidden_width=8)
    theta = double(policy.init(rng))
    spec = AdaptSpec.all_but(theta, "log_std")
    # Step sizes that differ by parameter, as learned ones do.
    alpha = {
        name: 0.05 + 0.1 * torch.rand(value.shape, generator=rng).double()
        for name, value in spec.init_step_sizes(theta, 0.1).items()
    }

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    observation = normal(NUM_TASKS, SAMPLES, OBSERVATION)
    action = 0.3 * normal(NUM_TASKS, SAMPLES, ACTION)
    # Roll-outs of another policy: importance weights away from 1.
    behaviour = policy.dist(theta, observation).log_prob(action) + 0.3 * normal(NUM_TASKS, SAMPLES)
    batches = InnerBatch(observation, action, behaviour, normal(NUM_TASKS, SAMPLES))
    demos = Demos(
        normal(NUM_TASKS, 20, OBSERVATION),
        normal(NUM_TASKS, 20, ACTION),
        mean_weights(torch.rand(NUM_TASKS, 20, generator=rng) < 0.8).double(),
    )
    return policy, spec, MetaParams(theta, alpha), batches, demos


def objective_of(policy, spec, *, ratio_gradient, outer_loss="squared", pre_update_weight=0.0):
    inner = InnerStep(policy, spec, ratio_clip=10.0, ratio_gradient=ratio_gradient)
    return MetaObjective(policy, inner, outer_loss, pre_update_weight)


def task(batch, index):
    return type(batch)(*(value[index] for value in batch))


def moved(meta, direction, scale):
    return MetaParams(
        *(
            {name: part[name] + scale * change[name] for name in part}
            for part, change in zip(meta, direction, strict=True)
        )
    )


def directional(gradient, direction):
    return sum(
        (part[name] * change[name]).sum()
        for part, change in zip(gradient, direction, strict=True)
        for name in part
    )


@pytest.mark.parametrize("outer_loss", ["squared", "log_likelihood"])
@pytest.mark.parametrize("ratio_gradient", [False, True])
@pytest.mark.parametrize("index", range(NUM_TASKS))
def test_meta_gradient_agrees_with_finite_differences(problem, ratio_gradient, outer_loss, index):
    policy, spec, meta, batches, demos = problem
    objective = objective_of(policy, spec, ratio_gradient=ratio_gradient, outer_loss=outer_loss)
    batch, demo = task(batches, index), task(demos, index)
    weight = policy.dist(meta.theta, batch.observation).log_prob(batch.action)
    log_ratio = weight - batch.behaviour_log_prob

    def value(at):
        if ratio_gradient:
            return objective.task_loss(at, batch, demo)
        # The stopped gradient means: the weights stay what they are at theta. Shifting the
        # behaviour's log-probability with the policy's keeps them there.
        log_prob = policy.dist(at.theta, batch.observation).log_prob(batch.action)
        held = batch._replace(behaviour_log_prob=log_prob.detach() - log_ratio)
        return objective.task_loss(at, held, demo)

    gradient = torch.func.grad(objective.task_loss)(meta, batch, demo)
    rng = torch.Generator().manual_seed(index)
    for _ in range(5):
        direction = MetaParams(
            *(
                {n: torch.randn(v.shape, generator=rng, dtype=v.dtype) for n, v in part.items()}
                for part in meta
            )
        )
        forward, backward = moved(meta, direction, EPSILON), moved(meta, direction, -EPSILON)
        numeric = (value(forward) - value(backward)) / (2 * EPSILON)
        analytic = directional(gradient, direction)
        assert abs(analytic - numeric) < 1e-4 * abs(numeric)


def test_batched_loss_is_the_mean_of_the_tasks(problem):
    policy, spec, meta, batches, demos = problem
    objective = objective_of(policy, spec, ratio_gradient=False)
    flat = demos.pooled()
    batched = objective.losses(meta, batches, demos, flat).post
    single = [objective.task_loss(meta, task(batches, i), task(demos, i)) for i in range(NUM_TASKS)]
    torch.testing.assert_close(batched, torch.stack(single).mean())


def test_second_order_term_is_there(problem):
    """Without the gradient through the inner gradient, the meta-gradient would be another."""
    policy, spec, meta, batches, demos = problem
    objective = objective_of(policy, spec, ratio_gradient=False)
    batch, demo = task(batches, 0), task(demos, 0)
    full = torch.func.grad(objective.task_loss)(meta, batch, demo).theta
    phi = objective.inner(meta.theta, meta.step_sizes, batch)

    def first_order(params):
        return objective.task_loss(
            MetaParams(params, {n: torch.zeros_like(a) for n, a in meta.step_sizes.items()}),
            batch,
            demo,
        )

    at_phi = torch.func.grad(first_order)(phi)
    assert (full["0.weight"] - at_phi["0.weight"]).abs().max() > 1e-3


def test_zero_step_size_returns_theta(problem):
    policy, spec, meta, batches, _ = problem
    inner = objective_of(policy, spec, ratio_gradient=False).inner
    phi = inner(meta.theta, spec.init_step_sizes(meta.theta, 0.0), task(batches, 0))
    for name, value in meta.theta.items():
        assert torch.equal(phi[name], value)


def test_what_does_not_adapt_stays(problem):
    policy, spec, meta, batches, _ = problem
    inner = objective_of(policy, spec, ratio_gradient=False).inner
    phi = inner(meta.theta, meta.step_sizes, task(batches, 0))
    assert torch.equal(phi["log_std"], meta.theta["log_std"])
    assert not torch.equal(phi["bias_transform"], meta.theta["bias_transform"])


def test_pre_update_term_adds_the_imitation_loss_of_theta(problem):
    policy, spec, meta, batches, demos = problem
    flat = demos.pooled()
    plain = objective_of(policy, spec, ratio_gradient=False)
    pulled = objective_of(policy, spec, ratio_gradient=False, pre_update_weight=3.0)
    loss, parts = plain(meta, batches, demos, flat)
    more, _ = pulled(meta, batches, demos, flat)
    torch.testing.assert_close(more - loss, 3.0 * parts.pre)
