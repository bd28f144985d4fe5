"""The meta-gradient against finite differences, in float64, for every task of a batch."""

from dataclasses import replace

import pytest
import torch

import gmps.methods.gmps.objective
import gmps.steps.inner_shared
from demokit.learning.distributions import Gaussian
from demokit.learning.networks import mlp
from gmps.experience.demos import DemoBatch
from gmps.methods.gmps.objective import MetaObjective
from gmps.policies.gaussian import AdaptSpec, GaussianPolicy
from gmps.policies.meta_params import MetaParams
from gmps.steps.inner import InnerBatch, InnerStep
from gmps.steps.inner_shared import surrogate_gradient
from gmps.steps.losses import behaviour_cloning, inner_surrogate, mean_weights

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
    demos = DemoBatch(
        normal(NUM_TASKS, 20, OBSERVATION),
        normal(NUM_TASKS, 20, ACTION),
        torch.zeros(NUM_TASKS, 20, 0),
        mean_weights(torch.rand(NUM_TASKS, 20, generator=rng) < 0.8).double(),
    )
    return policy, spec, MetaParams(theta, alpha), batches, demos


class OneTask:
    """L_BC(phi_i, D_i) of one task, word by word: what the meta-objective computes for many."""

    def __init__(self, policy, spec, *, ratio_gradient, outer_loss="squared"):
        self.policy, self.outer_loss = policy, outer_loss
        self.inner = InnerStep(policy, spec, ratio_clip=10.0, ratio_gradient=ratio_gradient)

    def loss(self, meta, batch, demos):
        phi = self.inner(meta.theta, meta.step_sizes, batch)
        dist = self.policy.dist(phi, demos.observation)
        return behaviour_cloning(dist, demos.action, demos.weight, kind=self.outer_loss)

    def objective(self, pre_update_weight, dtype=None):
        def adapted(meta, batches):
            return self.inner.for_tasks(*meta, batches, dtype)

        bf16 = dtype is not None
        return MetaObjective(self.policy, adapted, self.outer_loss, pre_update_weight, bf16=bf16)


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
    one = OneTask(policy, spec, ratio_gradient=ratio_gradient, outer_loss=outer_loss)
    batch, demo = task(batches, index), task(demos, index)
    weight = policy.dist(meta.theta, batch.observation).log_prob(batch.action)
    log_ratio = weight - batch.behaviour_log_prob

    def value(at):
        if ratio_gradient:
            return one.loss(at, batch, demo)
        # The stopped gradient means: the weights stay what they are at theta. Shifting the
        # behaviour's log-probability with the policy's keeps them there.
        log_prob = policy.dist(at.theta, batch.observation).log_prob(batch.action)
        held = batch._replace(behaviour_log_prob=log_prob.detach() - log_ratio)
        return one.loss(at, held, demo)

    gradient = torch.func.grad(one.loss)(meta, batch, demo)
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


def gradients_of(one, objective, meta, batches, demos):
    """Losses and gradients by every leaf: task by task, and as training computes them."""
    for leaf in meta.leaves():
        leaf.requires_grad_(True)
    flat = demos.pooled()
    single = [one.loss(meta, task(batches, i), task(demos, i)) for i in range(NUM_TASKS)]
    before = policy_loss(objective, meta, flat)
    loss = torch.stack(single).mean() + objective.pre_weight * before
    expected = torch.autograd.grad(loss, meta.leaves())
    losses = objective.backward(meta, batches, demos, flat)
    found = [leaf.grad for leaf in meta.leaves()]
    return (torch.stack(single).mean(), before, *expected), (*losses[:2], *found)


def policy_loss(objective, meta, flat):
    dist = objective.policy.dist(meta.theta, flat.observation)
    return behaviour_cloning(dist, flat.action, flat.weight, kind=objective.outer_loss)


@pytest.mark.parametrize("outer_loss", ["squared", "log_likelihood"])
@pytest.mark.parametrize("ratio_gradient", [False, True])
@pytest.mark.parametrize("at_once", [1, 2 * SAMPLES, 1000])
def test_training_steps_along_the_gradient_of_the_mean_of_the_tasks(
    problem, monkeypatch, outer_loss, ratio_gradient, at_once
):
    """By hand, and in parts of one task, two tasks, or all: to the last digits the same."""
    policy, spec, meta, batches, demos = problem
    for module in (gmps.methods.gmps.objective, gmps.steps.inner_shared):
        monkeypatch.setitem(module._SAMPLES_AT_ONCE, "cpu", at_once)
    one = OneTask(policy, spec, ratio_gradient=ratio_gradient, outer_loss=outer_loss)
    expected, found = gradients_of(one, one.objective(0.3), meta, batches, demos)
    for e, f in zip(expected, found, strict=True):
        torch.testing.assert_close(f.to(e.dtype), e, rtol=1e-6, atol=1e-9)


def test_bf16_gradients_are_right_to_about_two_digits(problem):
    policy, spec, meta, batches, demos = problem
    one = OneTask(policy, spec, ratio_gradient=False)
    expected, found = gradients_of(one, one.objective(0.0, torch.bfloat16), meta, batches, demos)
    e, f = (torch.cat([part.flatten() for part in parts]) for parts in (expected, found))
    assert 1e-4 * e.norm() < (f - e).norm() < 0.05 * e.norm()


def test_the_step_by_hand_differentiates_by_its_inputs_too(problem):
    """As `torch.func` does: by the features that an encoder makes, and by what is not adapted."""
    policy, _, meta, batches, _ = problem
    layers = policy.layers(meta.theta)
    x = batches.observation.clone().requires_grad_()
    std = policy.std(meta.theta).clone().requires_grad_()
    leaves = [x, std, *(tensor.requires_grad_() for layer in layers for tensor in layer)]

    def loss(layers, x, *rest):
        return inner_surrogate(
            Gaussian(mlp(layers, x), std), *rest, ratio_clip=10.0, ratio_gradient=False
        )

    by_func = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0, 0))
    given = x, *batches[1:]
    generator = torch.Generator().manual_seed(1)
    derivatives = []
    for gradient in (
        by_func(layers, *given),
        surrogate_gradient(x, layers, std, *batches[1:], ratio_clip=10.0),
    ):
        generator.manual_seed(1)
        parts = [part for layer in gradient for part in layer]
        along = [torch.randn(part.shape, generator=generator).double() for part in parts]
        derivatives.append(torch.autograd.grad(parts, leaves, along, retain_graph=True))
    for expected, found in zip(*derivatives, strict=True):
        torch.testing.assert_close(found, expected)


def test_second_order_term_is_there(problem):
    """Without the gradient through the inner gradient, the meta-gradient would be another."""
    policy, spec, meta, batches, demos = problem
    one = OneTask(policy, spec, ratio_gradient=False)
    batch, demo = task(batches, 0), task(demos, 0)
    full = torch.func.grad(one.loss)(meta, batch, demo).theta
    phi = one.inner(meta.theta, meta.step_sizes, batch)

    def first_order(params):
        return one.loss(
            MetaParams(params, {n: torch.zeros_like(a) for n, a in meta.step_sizes.items()}),
            batch,
            demo,
        )

    at_phi = torch.func.grad(first_order)(phi)
    assert (full["0.weight"] - at_phi["0.weight"]).abs().max() > 1e-3


def test_zero_step_size_returns_theta(problem):
    policy, spec, meta, batches, _ = problem
    inner = OneTask(policy, spec, ratio_gradient=False).inner
    phi = inner(meta.theta, spec.init_step_sizes(meta.theta, 0.0), task(batches, 0))
    for name, value in meta.theta.items():
        assert torch.equal(phi[name], value)


def test_what_does_not_adapt_stays(problem):
    policy, spec, meta, batches, _ = problem
    inner = OneTask(policy, spec, ratio_gradient=False).inner
    phi = inner(meta.theta, meta.step_sizes, task(batches, 0))
    assert torch.equal(phi["log_std"], meta.theta["log_std"])
    assert not torch.equal(phi["bias_transform"], meta.theta["bias_transform"])


def test_first_order_is_the_gradient_of_a_constant_inner_gradient(problem):
    policy, spec, meta, batches, _ = problem
    first_order = replace(InnerStep(policy, spec), second_order=False)
    theta = {name: value.detach().requires_grad_(True) for name, value in meta.theta.items()}
    one = task(batches, 0)
    phi = first_order(theta, meta.step_sizes, one)
    exact = InnerStep(policy, spec)(theta, meta.step_sizes, one)
    for name, value in phi.items():
        torch.testing.assert_close(value, exact[name])
        if name in spec.names:
            (slope,) = torch.autograd.grad(value.sum(), theta[name], retain_graph=True)
            assert torch.equal(slope, torch.ones_like(slope))
