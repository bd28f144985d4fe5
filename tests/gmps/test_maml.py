"""MAML, E-MAML and ProMP: their meta-gradients, their identities, and what they refuse."""

import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from short_run import DEMOS, halted_and_resumed, learner_of, options_of, trained_in

import gmps.methods.maml.objective
from demokit.envs.point import Point
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from gmps.distributed import WHOLE
from gmps.experience.demos import load_demos
from gmps.experience.rollouts import Rollouts
from gmps.loop import train
from gmps.method import IsTold, find_method
from gmps.methods.maml.algorithm import paid_in, standard_pay
from gmps.methods.maml.objective import MetaSurrogate, OverTasks, Stage
from gmps.methods.maml.options import Form
from gmps.policies.gaussian import LATENT, AdaptSpec, GaussianPolicy
from gmps.problem import Problem, Training
from gmps.runs.checkpoint import load
from gmps.runs.folder import Run, read_scalars
from gmps.steps.inner import InnerBatch, InnerStep, LikelihoodStep
from gmps.steps.losses import mean_weights, policy_gradient
from gmps.steps.trust_region import mean_kl

NUM_TASKS, SAMPLES, OBSERVATION, ACTION, ALPHA = 3, 30, 5, 2, 0.3
DOUBLE, EPSILON = torch.float64, 1e-6
FAMILY = ("maml", "e-maml", "promp")
FORMS = {
    "maml trpo": Form(),
    "maml vpg": Form(outer_ratio=False),
    "e-maml trpo": Form(exploration=0.7),
    "e-maml vpg": Form(outer_ratio=False, exploration=0.7),
    "promp": Form(inner_ratio=True, clip=0.3, kl_weights=(0.5, 0.2)),
}


def sampled(policy, params, rng):
    """Roll-outs of M tasks, the first of which ended early, by parameters without task axis or
    with one."""

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=DOUBLE)

    seen = normal(NUM_TASKS, SAMPLES, OBSERVATION)
    axis = 0 if params["log_std"].ndim > 1 else None
    dist = torch.func.vmap(policy.dist, in_dims=(axis, 0))(params, seen)
    action = dist.mean + dist.std[:, None] * normal(NUM_TASKS, SAMPLES, ACTION)
    log_prob = dist._replace(std=dist.std[:, None]).log_prob(action)
    weight = mean_weights(torch.arange(SAMPLES) < torch.tensor([[20], [SAMPLES], [SAMPLES]]))
    weight = weight.double()
    return Stage(InnerBatch(seen, action, log_prob, normal(*weight.shape) * weight), weight)


def test_every_method_descends_on_a_loss_of_its_own():
    def form(name, **changes):
        return find_method(name).options(**changes).form

    assert form("maml") == Form()
    assert form("maml", outer="vpg") == Form(outer_ratio=False)
    assert form("e-maml", exploration_weight=2.0) == Form(exploration=2.0)
    near = (5e-4, 5e-4)
    assert form("promp", inner_steps=2) == Form(inner_ratio=True, clip=0.3, kl_weights=near)


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("name", FAMILY)
def test_every_method_adapts_by_a_step_of_its_own(point_demos, name, second_order):
    options = options_of(name, second_order=second_order)
    inner = learner_of(load_demos(point_demos, DEMOS), name, options)[0].inner
    assert isinstance(inner, LikelihoodStep) == (name != "promp")
    assert inner.second_order == second_order


class Setting:
    """A policy, and roll-outs that it sampled before each of some inner steps and behind them."""

    def __init__(self, inner_steps=1, activation="tanh"):
        rng = torch.Generator().manual_seed(3)
        zeros, ones = torch.zeros(OBSERVATION).double(), torch.ones(OBSERVATION).double()
        self.policy = GaussianPolicy(
            zeros, ones, ACTION, 8, 0, 1.0, 1e-6, activation=activation, action_scale=2.0
        )
        self.theta = {name: value.double() for name, value in self.policy.init(rng).items()}
        self.spec = AdaptSpec.all_but(self.theta)
        self.alpha = self.spec.init_step_sizes(self.theta, ALPHA)
        step, phi, stages = self.inner(Form()), self.theta, []
        for j in range(inner_steps + 1):
            stages.append(sampled(self.policy, phi, rng))
            axis = None if j == 0 else 0
            phi = torch.func.vmap(step, in_dims=(axis, None, 0))(phi, self.alpha, stages[-1].seen)
        self.stages = tuple(stages)
        self.paid = torch.tensor([-1.0, 0.2, 0.9], dtype=DOUBLE)

    def inner(self, form, **others):
        if form.inner_ratio:
            return InnerStep(self.policy, self.spec, math.inf, ratio_gradient=True, **others)
        return LikelihoodStep(self.policy, self.spec, **others)

    def surrogate(self, form, chosen=slice(None), **others):
        stages = tuple(stage.rows(chosen) for stage in self.stages)
        form = form._replace(kl_weights=form.kl_weights[: len(stages) - 1])
        inner = self.inner(form, **others)
        paid = self.paid[chosen]
        return MetaSurrogate.at(self.theta, form, inner, self.alpha, stages, paid)

    def moved(self, along, size):
        return {name: value + size * along[name] for name, value in self.theta.items()}

    def direction(self, seed):
        rng = torch.Generator().manual_seed(seed)
        return {
            name: torch.randn(value.shape, generator=rng, dtype=DOUBLE)
            for name, value in self.theta.items()
        }


def dot(one, other):
    return sum((one[name] * other[name]).sum() for name in one)


@pytest.mark.parametrize("index", range(NUM_TASKS))
@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_meta_gradients_agree_with_finite_differences(form, inner_steps, index):
    """For every task of the batch: of every inner and outer form, through one step or two."""
    setting = Setting(inner_steps)
    loss = setting.surrogate(form, slice(index, index + 1)).loss
    gradient = torch.func.grad(loss)(setting.theta)
    for seed in range(4):
        along = setting.direction(seed)
        ends = (loss(setting.moved(along, sign * EPSILON)) for sign in (1, -1))
        numeric = (next(ends) - next(ends)) / (2 * EPSILON)
        torch.testing.assert_close(dot(gradient, along), numeric, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_first_order_meta_gradients_take_the_inner_gradient_for_a_constant(form):
    setting = Setting()
    one = setting.surrogate(form, slice(1), second_order=False)
    inner, stage = setting.inner(form), one.stages[0]
    adapted, frozen = setting.spec.split(setting.theta)
    task = InnerBatch(*(values[0] for values in stage.seen))
    constant = torch.func.grad(inner.loss)(adapted, frozen, task)

    class Constant(InnerStep):
        def __call__(self, theta, step_sizes, _):
            return {name: theta[name] - step_sizes[name] * constant[name] for name in theta}

    held = replace(one, inner=Constant(setting.policy, setting.spec))
    gradient = torch.func.grad(one.loss)(setting.theta)
    for seed in range(3):
        along = setting.direction(seed)
        ends = (held.loss(setting.moved(along, sign * EPSILON)) for sign in (1, -1))
        numeric = (next(ends) - next(ends)) / (2 * EPSILON)
        torch.testing.assert_close(dot(gradient, along), numeric, rtol=1e-5, atol=1e-8)
    full = torch.func.grad(setting.surrogate(form, slice(1)).loss)(setting.theta)
    assert float((full["0.weight"] - gradient["0.weight"]).abs().max()) > 1e-3


@pytest.mark.parametrize("form", [FORMS["maml trpo"], FORMS["promp"]], ids=["log", "ratio"])
@pytest.mark.parametrize("inner_steps", [1, 2])
def test_the_kl_product_through_the_inner_steps_agrees_with_finite_differences(form, inner_steps):
    setting = Setting(inner_steps)
    surrogate = setting.surrogate(form)
    product, gradient = (
        surrogate.kl_product(setting.theta),
        torch.func.grad(lambda theta: surrogate.judged(theta).kl),
    )
    for seed in range(3):
        along = setting.direction(seed)
        ends = [gradient(setting.moved(along, sign * EPSILON)) for sign in (1, -1)]
        for name, value in product(along).items():
            numeric = (ends[0][name] - ends[1][name]) / (2 * EPSILON)
            torch.testing.assert_close(value, numeric, rtol=1e-4, atol=1e-7)


def test_without_a_step_maml_is_the_policy_gradient_of_what_was_sampled_last():
    setting = Setting()
    still = setting.spec.init_step_sizes(setting.theta, 0.0)
    one = replace(setting.surrogate(FORMS["maml vpg"]), step_sizes=still)
    last = setting.stages[-1].seen

    def plain(theta):
        log_prob = setting.policy.dist(theta, last.observation).log_prob(last.action)
        return policy_gradient(log_prob, last.advantage)

    found, wanted = (torch.func.grad(loss)(setting.theta) for loss in (one.loss, plain))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)


def test_inner_steps_of_promp_and_maml_are_one_where_theta_sampled_and_curve_otherwise():
    """The second derivatives differ by E[A grad log pi grad log pi^T], of ProMP's section 4."""
    setting = Setting()
    adapted, frozen = setting.spec.split(setting.theta)
    task = InnerBatch(*(values[1] for values in setting.stages[0].seen))
    losses = [
        partial(setting.inner(FORMS[name]).loss, frozen=frozen, batch=task)
        for name in ("maml trpo", "promp")
    ]
    log, ratio = (torch.func.grad(loss)(adapted) for loss in losses)
    for name, value in log.items():
        torch.testing.assert_close(ratio[name], value)
    along = setting.direction(0)
    curved = [torch.func.jvp(torch.func.grad(loss), (adapted,), (along,))[1] for loss in losses]

    def log_prob(params):
        return setting.policy.dist(params, task.observation).log_prob(task.action)

    score = torch.func.jacrev(log_prob)(adapted)
    moved = sum((score[n].flatten(1) @ along[n].flatten()) for n in along)
    for name, rows in score.items():
        credit = -(task.advantage * moved / SAMPLES)
        wanted = (credit @ rows.flatten(1)).view_as(along[name])
        torch.testing.assert_close(curved[1][name] - curved[0][name], wanted)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_where_theta_sampled_ratios_are_one_and_nothing_has_moved(form):
    setting = Setting(2)
    surrogate = setting.surrogate(form)
    for dist, stage in zip(surrogate.policies(setting.theta), setting.stages, strict=True):
        log_prob = dist.log_prob(stage.seen.action)
        torch.testing.assert_close(log_prob, stage.seen.behaviour_log_prob)
    assert surrogate.judged(setting.theta).kl.abs() < 1e-12


@pytest.mark.parametrize("inner_steps", [1, 2])
def test_the_term_of_e_maml_credits_what_was_done_before_adaptation(inner_steps):
    """-lambda R_i mean log pi(a_pre), of theta alone: nothing where all tasks are paid alike."""
    setting = Setting(inner_steps)
    with_it, without = setting.surrogate(Form(exploration=2.0)), setting.surrogate(Form())
    log_prob = setting.stages[0].seen.behaviour_log_prob
    credit = (setting.stages[0].weight * log_prob).mean(1) * setting.paid
    added = with_it.loss(setting.theta) - without.loss(setting.theta)
    torch.testing.assert_close(added, -2.0 * credit.mean())
    alike = replace(with_it, paid=0 * setting.paid)
    torch.testing.assert_close(alike.loss(setting.theta), without.loss(setting.theta))


def test_what_adapted_policies_are_paid_is_in_units_of_all_tasks_steps():
    reward = torch.tensor([[[1.0, 3.0]], [[5.0, 0.0]]])  # the second ended after one step
    alive = torch.tensor([[[True, True]], [[True, False]]])
    empty = torch.zeros(2, 1, 2, 1)
    rollouts = Rollouts(empty, empty, reward, reward, alive, torch.zeros_like(alive))
    deviation = (8 / 3) ** 0.5  # of 1, 3 and 5, whose mean is 3
    expected = torch.tensor([-1 / deviation, 2 / deviation])
    torch.testing.assert_close(standard_pay(rollouts, WHOLE), expected)
    same = replace(rollouts, reward=alive.float())
    assert not standard_pay(same, WHOLE).any()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_steps_behind_an_end_change_nothing(form):
    """A task's roll-outs with as many dead steps again: the same loss and gradient."""
    setting = Setting()
    surrogate = setting.surrogate(form)
    longer = replace(surrogate, stages=tuple(map(with_dead_steps, setting.stages)))
    old = tuple(
        each._replace(mean=torch.cat([each.mean, each.mean + 1], 1)) for each in surrogate.old
    )
    longer = replace(longer, old=old)
    wanted, loss = torch.func.grad_and_value(surrogate.loss)(setting.theta)
    found, same = torch.func.grad_and_value(longer.loss)(setting.theta)
    torch.testing.assert_close(same, loss)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)


def with_dead_steps(stage):
    """Twice as many steps, of weight zero; the others count twice in a mean over all."""
    doubled = [torch.cat([values, values + 1], 1) for values in stage.seen[:3]]
    advantage, weight = (
        torch.cat([2 * values, 0 * values], 1) for values in (stage.seen.advantage, stage.weight)
    )
    return Stage(InnerBatch(*doubled, advantage), weight)


@pytest.mark.parametrize("at_once", [1, 2 * SAMPLES, 1000])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_some_tasks_at_a_time_are_the_mean_over_all(form, at_once, monkeypatch):
    monkeypatch.setitem(gmps.methods.maml.objective.SAMPLES_AT_ONCE, "cpu", at_once)
    setting = Setting()
    whole, along = setting.surrogate(form), setting.direction(0)
    make = partial(setting.surrogate, form)
    parts = OverTasks.of(make, setting.stages[0].weight, WHOLE)
    assert len(parts.surrogates) == {1: 3, 2 * SAMPLES: 2, 1000: 1}[at_once]
    moved = setting.moved(along, 0.01)
    for found, wanted in (
        (parts.gradient(moved), torch.func.grad(whole.loss)(moved)),
        (parts.kl_product(setting.theta)(along), whole.kl_product(setting.theta)(along)),
        (parts.judged(moved)._asdict(), whole.judged(moved)._asdict()),
    ):
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value)


def test_graphs_of_some_parts_are_kept_and_products_are_the_same_to_the_bit(monkeypatch):
    class Counted:
        def __init__(self, surrogate):
            self.surrogate, self.made = surrogate, 0

        def kl_product(self, theta):
            self.made += 1
            return self.surrogate.kl_product(theta)

    setting = Setting()
    form, along = next(iter(FORMS.values())), setting.direction(0)
    parts = [Counted(setting.surrogate(form, slice(i, i + 1))) for i in range(3)]
    over = OverTasks(tuple(parts), (1 / 3,) * 3, WHOLE)
    every = over.kl_product(setting.theta)(along)
    monkeypatch.setattr(gmps.methods.maml.objective, "_KEPT", 1)
    product = over.kl_product(setting.theta)
    for _ in range(2):
        for name, value in product(along).items():
            assert torch.equal(value, every[name])
    assert [part.made for part in parts] == [1 + 1, 1 + 2, 1 + 2]


def test_the_kl_is_of_the_adapted_policies_alone():
    setting = Setting()
    surrogate, moved = setting.surrogate(Form()), setting.moved(setting.direction(0), 0.05)
    adapted = surrogate.policies(moved)[-1]
    wanted = mean_kl(surrogate.old[-1], adapted, setting.stages[-1].weight)
    torch.testing.assert_close(surrogate.judged(moved).kl, wanted)


def test_without_inner_steps_it_is_the_policy_gradient_of_all_tasks():
    """MultiTask: the gradient of what theta itself is paid, and nothing before it."""
    setting = Setting(inner_steps=0)
    surrogate, last = setting.surrogate(FORMS["maml vpg"]), setting.stages[0].seen
    found = torch.func.grad(surrogate.loss)(setting.theta)

    def plain(theta):
        log_prob = setting.policy.dist(theta, last.observation).log_prob(last.action)
        return policy_gradient(log_prob, last.advantage)

    for name, value in torch.func.grad(plain)(setting.theta).items():
        torch.testing.assert_close(found[name], value)


def test_multitask_is_fine_tuned_with_the_best_step_size(tmp_path):
    chosen = options_of("multitask", iterations=2, hidden_width=16, tuning_tasks=2)
    trained = run_of(tmp_path / "run", "multitask", problem_of(), chosen)
    assert trained.spent.meta_training == 2 * 3 * 3 * 20  # iterations, tasks, K, T
    assert trained.spent.tuning > 0
    scores = (tmp_path / "run" / "step_sizes.csv").read_text().splitlines()[1:]
    best = max(scores, key=lambda row: float(row.split(",")[1]))
    assert trained.learner.step_size == pytest.approx(float(best.split(",")[0]))
    stated = replace(chosen, step_size=0.02, tuning_tasks=20)
    assert find_method("multitask").code.start(Training(problem_of(), stated)).step_size == 0.02


def test_what_was_paid_after_adaptation_is_said_where_somebody_adapted():
    before, after = (
        SimpleNamespace(rollouts=SimpleNamespace(reward=torch.full((2, 3, 4), each)))
        for each in (1.0, 2.0)
    )
    assert paid_in([before], WHOLE) == {"return_pre": 4.0}
    assert paid_in([before, before, after], WHOLE) == {"return_pre": 4.0, "return_post": 8.0}


def test_promps_weight_follows_its_kl():
    """Worked: target 0.01; 0.016 is above 1.5 of it, 0.006 below two thirds, 0.012 between."""
    form = Form(kl_weights=(0.5, 0.5, 0.5), kl_target=0.01)
    assert form.after([0.016, 0.006, 0.012]).kl_weights == (1.0, 0.25, 0.5)
    assert Form(kl_weights=(0.5,)).after([9.0]).kl_weights == (0.5,)
    with pytest.raises(DemokitError, match="--kl-target has no effect without --kl-weight"):
        find_method("promp").options(kl_weight=0.0, kl_target=0.01)


def test_promps_kls_are_of_the_policies_before_each_inner_step():
    setting = Setting(inner_steps=2)
    moved = setting.moved(setting.direction(0), 0.05)
    surrogate = setting.surrogate(FORMS["promp"])
    judged, policies = surrogate.judged(moved), surrogate.policies(moved)
    for j in range(2):
        kl = mean_kl(surrogate.old[j], policies[j], setting.stages[j].weight)
        torch.testing.assert_close(judged.drift[j], kl)
    bare = setting.surrogate(FORMS["promp"]._replace(kl_weights=())).judged(moved)
    penalty = (0.5 * judged.drift[0] + 0.2 * judged.drift[1]) / 2
    torch.testing.assert_close(judged.loss - bare.loss, penalty)


def test_promps_weights_grow_and_shrink_in_training():
    """At Adam's first step a KL is far below any of 1, far above any of 1e-12."""
    for target, factor in ((1.0, 0.5), (1e-12, 2.0)):
        chosen = options("promp", kl_target=target, kl_weight=0.01)
        training, code = Training(problem_of(), chosen), find_method("promp").code
        found = [
            each.state["kl_weights"] for each in code.train(training, code.start(training), {}, 0)
        ]
        for i, weights in enumerate(found):
            assert weights.tolist() == [0.01 * factor ** (i + 1)] * 2


def oracle_of(problem, **changes):
    """A policy that is told the problem's tasks, before training."""
    chosen = options_of("multitask", oracle=True, hidden_width=16, **changes)
    learner = find_method("multitask").code.start(Training(problem, chosen))
    return learner.told(torch.tensor([task.context for task in problem.tasks]))


def test_an_oracle_learns_in_each_task_under_its_context():
    problem = problem_of()
    learner, sampler = oracle_of(problem), problem.sampler(problem.tasks, explore=4)
    told = learner.begin(3)[LATENT]
    torch.testing.assert_close(told.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(told.std(0), torch.ones(2))
    rngs = sampler.streams(np.random.default_rng(0))
    explored = sampler(learner.explorer(learner.begin(3), 0, 4, rngs), rngs).explored
    stage = Stage.of(explored.rollouts, learner.inner_batch(explored.rollouts))
    theta, policy = learner.meta.theta, learner.policy
    parts = Form(), learner.inner, {}, (stage,), torch.zeros(3), learner.contexts
    surrogate = MetaSurrogate.at(theta, *parts)
    (old,) = surrogate.old
    torch.testing.assert_close(old.log_prob(stage.seen.action), stage.seen.behaviour_log_prob)

    def plain(params):
        losses = []
        for i, context in enumerate(told):
            seen = InnerBatch(*(values[i] for values in stage.seen))
            dist = policy.dist({**params, LATENT: params[LATENT] + context}, seen.observation)
            losses.append(policy_gradient(dist.log_prob(seen.action), seen.advantage))
        return torch.stack(losses).mean()

    found, wanted = torch.func.grad(surrogate.loss)(theta), torch.func.grad(plain)(theta)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)
    along = {name: torch.ones_like(value) for name, value in theta.items()}
    assert all(bool(v.isfinite().all()) for v in surrogate.kl_product(theta)(along).values())


def test_an_oracle_acts_in_no_task_that_it_was_not_told():
    with pytest.raises(DemokitError, match="tasks whose contexts it is told"):
        oracle_of(problem_of()).begin(2)


def test_an_oracle_resumes_to_the_bit_and_comes_back_from_its_checkpoint(tmp_path, point_demos):
    demos, chosen = load_demos(point_demos, 2), options_of("multitask", oracle=True, step_size=0.1)
    whole = trained_in(tmp_path / "run", demos, "multitask", chosen)
    last = halted_and_resumed(tmp_path / "halted", demos, "multitask", chosen)
    back = load(tmp_path / "run")[0].learner
    assert isinstance(back, IsTold)
    for n, value in whole.learner.tensors().items():
        assert torch.equal(last.learner.tensors()[n], value)
        assert torch.equal(back.tensors()[n], value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"iterations": 4}, ""),
        ({"iterations": 0}, "of these alone to choose its step size"),
        ({"iterations": 0, "step_size": 0.1}, ""),
    ],
    ids=str,
)
def test_what_chooses_a_step_size_is_told_where_it_does(changes, told):
    assert options_of("multitask", **changes).told(images=False) == told


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("kind", [InnerStep, LikelihoodStep])
@pytest.mark.parametrize("frozen", [(), ("log_std",)], ids=str)
def test_steps_of_many_tasks_are_those_of_each(activation, kind, frozen):
    """Whichever way is the fastest."""
    setting = Setting(activation=activation)
    spec = AdaptSpec.all_but(setting.theta, *frozen)
    step, seen = kind(setting.policy, spec), setting.stages[0].seen
    seen = seen._replace(behaviour_log_prob=seen.behaviour_log_prob + 0.1)
    alpha = spec.init_step_sizes(setting.theta, ALPHA)
    found = step.for_tasks(setting.theta, alpha, seen)
    for i in range(len(seen.action)):
        own = step(setting.theta, alpha, InnerBatch(*(values[i] for values in seen)))
        for name in spec.names:
            torch.testing.assert_close(found[name][i], own[name])


def test_without_iterations_random_parameters_are_fine_tuned(tmp_path):
    chosen = options_of("multitask", iterations=0, hidden_width=16, tuning_tasks=2)
    trained = run_of(tmp_path / "run", "multitask", problem_of(), chosen)
    fresh = find_method("multitask").code.start(Training(problem_of(), chosen))
    assert trained.finished
    assert trained.spent.meta_training == 0 < trained.spent.tuning
    assert trained.learner.step_size > 0
    for name, value in fresh.tensors().items():
        assert torch.equal(trained.learner.tensors()[name], value)


def options(name, **changes):
    return options_of(name, **{"inner_steps": 2, "hidden_width": 16, **changes})


def problem_of(num_tasks=3):
    tasks = make_tasks(Point(), "uniform", "train", num_tasks=num_tasks)
    return Problem.in_family(Point(), "dense", "state", tasks)


def run_of(folder, name, problem, chosen):
    run = Run(folder, name, chosen, "point")
    try:
        return train(run, problem)
    finally:
        run.close()


@pytest.mark.parametrize("name", FAMILY)
def test_counts_all_roll_outs_before_and_after_adaptation(name, tmp_path):
    chosen = options(name, iterations=2, meta_batch=2)
    trained = run_of(tmp_path / "run", name, problem_of(), chosen)
    assert trained.spent.meta_training == 2 * 2 * 3 * 3 * 20  # iterations, tasks, stages, K, T
    assert trained.spent.tuning == trained.spent.demonstrations == 0
    assert trained.finished


@pytest.mark.parametrize("name", FAMILY)
def test_of_demonstrations_their_tasks_are_taken_alone(name, point_demos, tmp_path, invoke):
    args = ("--iterations", 1, "--rollouts-per-task", 3, "--threads", 1)
    given = ("meta-train", "--method", name, "--output-dir", tmp_path / "run", *args)
    said = invoke(*given, "--demos", point_demos).output
    assert "of demonstrations" not in said
    assert "step size 0.1 (stated)" in said


@pytest.mark.parametrize("name", FAMILY)
def test_the_standard_deviation_adapts_and_is_learned(name):
    problem, chosen = problem_of(), options(name)
    code = find_method(name).code
    training = Training(problem, chosen)
    before = code.start(training)
    found = next(code.train(training, before, {}, 0))
    assert not torch.equal(found.learner.meta.theta["log_std"], before.meta.theta["log_std"])
    sampler = problem.sampler(problem.tasks, explore=3)
    rngs = sampler.streams(np.random.default_rng(0))
    belief = before.begin(3)
    rollouts = sampler(before.explorer(belief, 0, 3, rngs), rngs).explored.rollouts
    after = before.adapt(belief, 0, rollouts, None)
    assert not torch.equal(after["log_std"][0], after["log_std"][1])


def test_steps_beyond_those_of_training_are_shorter():
    chosen = options("maml", later_decay=0.5, inner_lr=0.2)
    learner = find_method("maml").code.start(Training(problem_of(), chosen))
    taken = [float(learner.step_sizes(j)["log_std"][0]) for j in range(4)]
    assert taken == pytest.approx([0.2, 0.2, 0.1, 0.1])
    assert float(learner.scaled(3.0).step_sizes(0)["log_std"][0]) == pytest.approx(0.6)


def test_outputs_of_the_scale_span_the_actions():
    """The same network in other units: actions a tenth, log-likelihoods shifted by a constant."""
    rng = torch.Generator().manual_seed(0)
    zeros = torch.zeros(4)
    one = GaussianPolicy(zeros, zeros + 1, 2, 8, 0, 1.0, 1e-6)
    ten, theta = replace(one, action_scale=10.0), one.init(rng)
    seen, action = torch.randn(6, 4, generator=rng), torch.randn(6, 2, generator=rng)
    small, large = ten.dist(theta, seen), one.dist(theta, seen)
    torch.testing.assert_close(10 * small.mean, large.mean)
    torch.testing.assert_close(10 * small.std, large.std)
    shift = small.log_prob(action / 10) - large.log_prob(action)
    torch.testing.assert_close(shift, torch.full((6,), 2 * math.log(10)))


def test_one_episode_a_step_cannot_be_compared():
    with pytest.raises(DemokitError, match="rollouts_per_task: at least 2"):
        find_method("maml").options(rollouts_per_task=1)


def test_an_iteration_draws_no_more_tasks_than_there_are(tmp_path):
    with pytest.raises(DemokitError, match=r"meta_batch draws 4 tasks of 3.*more --tasks"):
        run_of(tmp_path / "run", "maml", problem_of(), options("maml", meta_batch=4))


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("outer", ["trpo", "vpg"])
def test_options_of_the_other_outer_step_are_refused(name, outer):
    if name == "promp":
        return
    foreign = {"trpo": {"outer_lr": 0.1}, "vpg": {"max_kl": 0.1}}[outer]
    with pytest.raises(DemokitError, match="has no effect without --outer"):
        find_method(name).options(outer=outer, **foreign)


@pytest.mark.parametrize("name", FAMILY)
def test_one_task_trains(name, tmp_path):
    """There is nothing to meta-learn, and nothing fails: E-MAML's credit is zero."""
    trained = run_of(tmp_path / "run", name, problem_of(1), options(name, iterations=2))
    assert trained.finished


@pytest.mark.parametrize("name", FAMILY)
def test_where_all_are_paid_alike_nothing_moves(name, tmp_path, monkeypatch):
    """No advantage, no step: zero-variance advantages are zeros, not noise."""
    monkeypatch.setattr(
        Point, "reward", lambda _, kind, terms, *others: 1 + 0 * terms["point_pos_w_m"][:, 0]
    )
    problem, chosen = problem_of(), options(name, iterations=2)
    start = find_method(name).code.start(Training(problem, chosen)).meta.theta
    theta = run_of(tmp_path / "run", name, problem, chosen).learner.meta.theta
    for n, value in start.items():
        # ProMP's KL is zero up to rounding, of which Adam makes something.
        torch.testing.assert_close(theta[n], value, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", FAMILY)
def test_a_reward_that_is_no_number_ends_the_run_in_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Point, "reward", lambda _, kind, terms, *others: np.nan * terms["point_pos_w_m"][:, 0]
    )
    with pytest.raises(DemokitError, match="its dense reward is nan"):
        run_of(tmp_path / "run", name, problem_of(), options(name))


def test_images_are_refused(tmp_path):
    from demokit.envs import make_family
    from demokit.envs.vision import Vision

    push = make_family("push")
    tasks = make_tasks(push, "paper", "train", num_tasks=2)
    problem = Problem.in_family(push, "dense", Vision(), tasks)
    with pytest.raises(DemokitError, match="acts from states, not from images"):
        run_of(tmp_path / "run", "maml", problem, options("maml"))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("maml", {"outer": "vpg"}),
        ("e-maml", {}),
        ("maml", {"second_order": False}),
        ("promp", {"kl_target": 0.01}),
    ],
    ids=str,
)
def test_other_forms_resume_to_the_bit(name, changes, tmp_path, point_demos):
    """What `test_methods` does not: from the checkpoint after the second of four iterations."""
    demos = load_demos(point_demos, 2)
    chosen = options(name, **changes)
    whole = trained_in(tmp_path / "whole", demos, name, chosen)
    rest = halted_and_resumed(tmp_path / "halted", demos, name, chosen)
    for n, value in whole.learner.tensors().items():
        assert torch.equal(rest.learner.tensors()[n], value)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILY, "maesn"])
def test_learns_to_learn_point(name, tmp_path):
    """After one step, better than before and than before training."""
    chosen = find_method(name).options(iterations=40, eval_every=39, threads=1, action_scale=1.0)
    trained = run_of(tmp_path / "run", name, problem_of(20), chosen)
    assert trained.finished
    first, *_, last = read_scalars(tmp_path / "run" / "metrics.csv")
    assert last["return_after"] > max(last["return_before"], first["return_after"]) + 2
