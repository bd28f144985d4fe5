"""MAESN: the latent's step, its meta-gradient, and what it leaves alone."""

import math

import numpy as np
import pytest
import torch
from short_run import options_of

from demokit.envs.point import Point
from demokit.envs.tasks import make_tasks
from gmps.method import find_method
from gmps.methods.maml.maesn import Belief, LatentSurrogate, adapted, prior_kl
from gmps.methods.maml.objective import Stage
from gmps.policies.gaussian import LATENT, GaussianPolicy
from gmps.problem import Problem, Training
from gmps.steps.inner import InnerBatch
from gmps.steps.losses import mean_weights
from gmps.steps.trust_region import mean_kl

NUM_TASKS, K, T, LATENTS, OBSERVATION, ACTION = 3, 4, 5, 2, 4, 2
DOUBLE, EPSILON = torch.float64, 1e-6


class Setting:
    """Training tasks 4, 0 and 2 of five, and roll-outs under their latents."""

    def __init__(self):
        self.rng = torch.Generator().manual_seed(0)
        zeros, ones = torch.zeros(OBSERVATION).double(), torch.ones(OBSERVATION).double()
        self.policy = GaussianPolicy(zeros, ones, ACTION, 8, LATENTS, 1.0, 1e-6, activation="tanh")
        theta = {name: value.double() for name, value in self.policy.init(self.rng).items()}
        del theta[LATENT]
        self.params = {
            **theta,
            "tasks.mean": self.normal(5, LATENTS),
            "tasks.log_std": 0.3 * self.normal(5, LATENTS),
            "steps.mean": torch.tensor([0.4, 0.1], dtype=DOUBLE),
            "steps.log_std": torch.tensor([0.2, 0.3], dtype=DOUBLE),
        }
        self.tasks = torch.tensor([4, 0, 2])
        self.latents, self.score = self.normal(NUM_TASKS, K, LATENTS), self.normal(NUM_TASKS, K)
        self.noise = self.normal(NUM_TASKS, K, LATENTS)
        seen, action = self.normal(NUM_TASKS, K * T, OBSERVATION), self.normal(NUM_TASKS, K * T, 2)
        weight = mean_weights(torch.arange(K * T) < torch.tensor([[13], [20], [20]])).double()
        log_prob, advantage = self.normal(NUM_TASKS, K * T) - 3, self.normal(NUM_TASKS, K * T)
        self.after = Stage(InnerBatch(seen, action, log_prob, advantage * weight), weight)

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.rng, dtype=DOUBLE)

    def surrogate(self, own=slice(None)):
        given = self.tasks[own], self.latents[own], self.score[own], self.noise[own]
        return LatentSurrogate(self.policy, *given, self.after.rows(own), 0.3).at(self.params)

    def direction(self):
        return {name: self.normal(*value.shape) for name, value in self.params.items()}

    def moved(self, along, size):
        return {name: value + size * along[name] for name, value in self.params.items()}


def test_the_step_is_the_policy_gradient_of_the_latents():
    setting = Setting()
    belief = Belief(setting.normal(NUM_TASKS, LATENTS), 0.3 * setting.normal(NUM_TASKS, LATENTS))
    alpha = Belief(setting.params["steps.mean"], setting.params["steps.log_std"])

    def paid(mean, log_std):
        drawn = torch.distributions.Normal(mean[:, None], log_std.exp()[:, None])
        log_prob = drawn.log_prob(setting.latents).sum(-1)
        return (log_prob * setting.score).mean(1).sum()

    leaves = [part.requires_grad_() for part in belief]
    slopes = torch.autograd.grad(paid(*leaves), leaves)
    found = adapted(belief, alpha, setting.latents, setting.score)
    for part, before, size, slope in zip(found, belief, alpha, slopes, strict=True):
        torch.testing.assert_close(part, before + size * slope)


def test_the_prior_s_kl_of_worked_numbers():
    # N(1, e) and N(0, 1): (e^2 + 1 - 1) / 2 - 1, and 0.
    belief = Belief(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert prior_kl(belief).item() == pytest.approx(math.e**2 / 2 - 1)


@pytest.mark.parametrize("index", range(NUM_TASKS))
def test_meta_gradients_agree_with_finite_differences(index):
    """By the policy, every training task's Gaussian, and the step sizes."""
    setting = Setting()
    loss = setting.surrogate(slice(index, index + 1)).loss
    gradient = torch.func.grad(loss)(setting.params)
    for _ in range(4):
        along = setting.direction()
        ends = [loss(setting.moved(along, sign * EPSILON)) for sign in (1, -1)]
        found = sum((gradient[n] * along[n]).sum() for n in along)
        torch.testing.assert_close(found, (ends[0] - ends[1]) / (2 * EPSILON), rtol=1e-5, atol=1e-8)
    own = int(setting.tasks[index])
    others = [i for i in range(5) if i != own]
    assert gradient["tasks.mean"][own].any()
    assert not gradient["tasks.mean"][others].any()
    assert gradient["steps.mean"].any()
    assert gradient["steps.log_std"].any()


def test_the_kl_product_agrees_with_finite_differences():
    setting = Setting()
    surrogate = setting.surrogate()
    product = surrogate.kl_product(setting.params)
    gradient = torch.func.grad(lambda params: surrogate.judged(params).kl)
    along = setting.direction()
    ends = [gradient(setting.moved(along, sign * EPSILON)) for sign in (1, -1)]
    for name, value in product(along).items():
        numeric = (ends[0][name] - ends[1][name]) / (2 * EPSILON)
        torch.testing.assert_close(value, numeric, rtol=1e-4, atol=1e-7)


def test_the_kl_is_of_actions_under_the_adapted_latents():
    setting = Setting()
    surrogate, moved = setting.surrogate(), setting.moved(setting.direction(), 0.05)
    wanted = mean_kl(surrogate.old, surrogate.acting(moved), setting.after.weight)
    torch.testing.assert_close(surrogate.judged(moved).kl, wanted)
    assert surrogate.judged(setting.params).kl.abs() < 1e-12


@pytest.fixture
def training():
    tasks = make_tasks(Point(), "uniform", "train", num_tasks=3)
    problem = Problem.in_family(Point(), "dense", "state", tasks)
    return Training(problem, options_of("maesn", hidden_width=16))


def test_a_latent_is_one_for_a_whole_roll_out_and_theta_never_adapts(training):
    learner = find_method("maesn").code.start(training)
    sampler = training.sampler(explore=3)
    rngs = sampler.streams(np.random.default_rng(0))
    belief = learner.begin(3)
    assert not belief.mean.any()
    assert not belief.log_std.any()  # the prior
    explored = sampler(learner.explorer(belief, 0, 3, rngs), rngs).explored
    rollouts, latents, _ = explored
    assert latents.shape == (3, 3, 1, 2)
    theta = {**learner.theta, LATENT: latents[1, 2, 0]}
    dist = learner.policy.dist(theta, rollouts.observation[1, 2])
    torch.testing.assert_close(dist.log_prob(rollouts.action[1, 2]), rollouts.log_prob[1, 2])
    after = learner.adapt(belief, 0, rollouts, latents)
    assert set(after._fields) == {"mean", "log_std"}
    assert not torch.equal(after.mean, belief.mean)


def test_steps_on_a_new_task_become_shorter_by_half(training):
    learner = find_method("maesn").code.start(training)
    sampler = training.sampler(explore=3)
    rngs = sampler.streams(np.random.default_rng(0))
    belief = learner.begin(3)
    rollouts, latents, _ = sampler(learner.explorer(belief, 0, 3, rngs), rngs).explored
    lengths = [learner.adapt(belief, step, rollouts, latents).mean for step in range(3)]
    torch.testing.assert_close(lengths[1], lengths[0] / 2)
    torch.testing.assert_close(lengths[2], lengths[0] / 4)


def test_where_all_are_paid_alike_the_latent_stays(training):
    learner = find_method("maesn").code.start(training)
    sampler = training.sampler(explore=3)
    rngs = sampler.streams(np.random.default_rng(0))
    belief = learner.begin(3)
    rollouts, latents, _ = sampler(learner.explorer(belief, 0, 3, rngs), rngs).explored
    rollouts.reward.fill_(0.1)
    after = learner.adapt(belief, 0, rollouts, latents)
    torch.testing.assert_close(after.mean, belief.mean, rtol=0, atol=1e-6)


def test_policy_gaussians_and_step_sizes_all_learn(training):
    code = find_method("maesn").code
    before = code.start(training)
    found = next(code.train(training, before, {}, 0))
    assert found.env_steps == 2 * 3 * 3 * 20
    for name, value in found.learner.params.items():
        assert not torch.equal(value, before.params[name]), name
