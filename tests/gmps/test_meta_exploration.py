"""Meta-exploration: its gradients, what its ablations change, and what it refuses."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from short_run import halted_and_resumed, learner_of, options_of, roll_outs, trained_in

import gmps.methods.maml.meta_exploration.objective
from demokit.envs.point import Point
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from gmps.experience.demos import DemoBatch, load_demos
from gmps.experience.rollouts import Rollouts
from gmps.loop import train
from gmps.method import find_method
from gmps.methods.maml.meta_exploration.learner import Belief
from gmps.methods.maml.meta_exploration.networks import EXPLORER, ORIGIN, Networks, Shown
from gmps.methods.maml.meta_exploration.objective import Batch, Imitated, Objective, Paid
from gmps.policies.gaussian import GaussianPolicy
from gmps.policies.meta_params import MetaParams
from gmps.problem import Problem, Training
from gmps.runs.folder import Run, read_scalars
from gmps.steps.advantage import Advantage
from gmps.steps.dice import dice
from gmps.steps.inner import InnerBatch
from gmps.steps.losses import mean_weights

NAME = "meta-exploration"
M, K, T, SEEN, A, Z, ALPHA = 3, 4, 6, 3, 2, 5, 0.3
DOUBLE, EPSILON = torch.float64, 1e-6
INNER = ("return", "reward", "policy-gradient")
CREDITS = ("advantage", "dice", "e-maml")


class Setting:
    """Roll-outs of M tasks, before and after adaptation; one episode of the first ended early."""

    def __init__(self, inner="return", goal="paid", shared=False):
        self.rng = torch.Generator().manual_seed(1)
        zeros, ones = torch.zeros(SEEN).double(), torch.ones(SEEN).double()
        make = partial(GaussianPolicy, zeros, ones, A, 8, initial_std=0.7, activation="tanh")
        policy, explorer = make(bias_transform_width=Z), make(bias_transform_width=0)
        self.networks = Networks(
            None if shared else explorer, policy, predicts=inner != "policy-gradient"
        )
        theta = self.networks.init(self.rng)
        self.theta = {name: value.double() for name, value in theta.items()}
        self.alive = torch.arange(T) < torch.full((M, K, 1), T)
        self.alive[0, 1, 3:] = False
        weight = mean_weights(self.alive.flatten(1)).view(M, K, T).double() / (K * T)
        seen = self.normal(M, K, T, SEEN)
        acting = self.networks.exploring(self.theta, seen)
        action = acting.mean + acting.std * self.normal(M, K, T, A)
        self.shown = Shown(seen, action, 3 * self.normal(M, K, T), weight)
        self.log_prob = acting.log_prob(action)
        self.goal = self.paid() if goal == "paid" else self.imitated()

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.rng, dtype=DOUBLE)

    def paid(self):
        """What the adapted policies have sampled, and advantages."""
        seen, latents = (
            self.normal(M, K * T, SEEN),
            self.networks.adapted(self.theta, ALPHA, self.shown),
        )
        acting = self.networks.exploiting(self.theta, latents, seen)
        action = acting.mean + acting.std * self.normal(M, K * T, A)
        sampled = InnerBatch(seen, action, acting.log_prob(action), self.normal(M, K * T))
        return Paid(sampled, 0.2)

    def imitated(self):
        weight = mean_weights(torch.arange(9) < torch.tensor([[5], [9], [9]])).double()
        shown = (self.normal(M, 9, width) for width in (SEEN, A, 0))
        return Imitated(DemoBatch(*shown, weight), "squared")

    @property
    def batch(self):
        experts = self.goal if isinstance(self.goal, Imitated) else None
        paid = torch.tensor([-1.0, 0.2, 0.9], dtype=DOUBLE)
        return Batch(self.shown, self.log_prob, self.alive, self.goal, paid, experts)

    def objective(self, credit="dice", **changes):
        estimator = Advantage(changes.pop("discount", 0.9), 1.0, changes.pop("baseline", "linear"))
        return Objective(self.networks, ALPHA, credit, estimator, 0.2, **changes)

    def gradients(self, credit="dice", batch=None, **changes):
        """Of all parameters, through `Objective.backward`; those without one are left out."""
        meta = MetaParams(self.theta, {}).learnable()
        losses = self.objective(credit, **changes).backward(meta, batch or self.batch)
        return losses, {n: v.grad for n, v in meta.theta.items() if v.grad is not None}

    def goal_loss(self, theta, latents):
        return self.goal.loss(self.networks.exploiting(theta, latents, self.goal.observation))


def moved(params, along, size):
    return {name: value + size * along[name] for name, value in params.items()}


@pytest.mark.parametrize("goal", ["paid", "imitated"])
@pytest.mark.parametrize("inner", INNER)
def test_the_explorers_gradient_is_that_through_the_cumulative_dice_product(inner, goal):
    """Sign included: the report's (5) taken literally is the negative of this."""
    setting = Setting(inner, goal)
    learned = {n: v.clone().requires_grad_() for n, v in setting.theta.items()}
    log_prob = setting.networks.exploring(learned, setting.shown.observation).log_prob(
        setting.shown.action
    )
    product = dice(log_prob, log_prob.detach())  # exp(sum_{t' <= t} log mu - stopped)
    torch.testing.assert_close(product, torch.ones_like(product))
    constants = {n: v.detach() for n, v in learned.items()}
    latents = constants[ORIGIN].repeat(M, 1).requires_grad_()
    losses = setting.networks.losses(constants, latents, setting.shown)
    total = (setting.shown.weight * product * losses).sum()
    (slope,) = torch.autograd.grad(total, latents, create_graph=True)
    setting.goal_loss(constants, latents.detach() - ALPHA * slope).backward()
    _, found = setting.gradients("dice")
    wanted = {n: v.grad for n, v in learned.items() if n.startswith(EXPLORER)}
    assert float(wanted["explorer.0.weight"].abs().max()) > 1e-4
    for name, value in wanted.items():
        if value is not None:
            torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("inner", INNER)
def test_the_inner_step_descends_by_finite_differences(inner):
    """z' = z - alpha d/dz mean l, for each task and each dimension."""
    setting = Setting(inner)
    networks, theta, shown = setting.networks, setting.theta, setting.shown
    found = networks.adapted(theta, ALPHA, shown)

    def mean(latent):
        losses = networks.losses(theta, latent.expand(M, -1), shown)
        return torch.stack(
            [own[live].mean() for own, live in zip(losses, setting.alive, strict=True)]
        )

    for i in range(Z):
        step = EPSILON * torch.eye(Z, dtype=DOUBLE)[i]
        slope = (mean(theta[ORIGIN] + step) - mean(theta[ORIGIN] - step)) / (2 * EPSILON)
        torch.testing.assert_close(
            found[:, i], theta[ORIGIN][i] - ALPHA * slope, rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize("goal", ["paid", "imitated"])
@pytest.mark.parametrize("inner", INNER)
def test_outer_gradients_agree_with_finite_differences_through_the_inner_step(inner, goal):
    """Of pi, of M and of the latent before adaptation; they get nothing of the explorer's loss."""
    setting = Setting(inner, goal)
    _, found = setting.gradients("advantage")

    def loss(theta):
        return setting.goal_loss(theta, setting.networks.adapted(theta, ALPHA, setting.shown))

    names = [n for n in setting.theta if not n.startswith(EXPLORER)]
    assert any(n.startswith("model.") for n in names) == (inner != "policy-gradient")
    for _ in range(4):
        along = {n: setting.normal(*v.shape) * (n in names) for n, v in setting.theta.items()}
        ends = [loss(moved(setting.theta, along, sign * EPSILON)) for sign in (1, -1)]
        slope = sum((found[n] * along[n]).sum() for n in names if n in found)
        torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * EPSILON), rtol=1e-5, atol=1e-8)


def test_with_nothing_taken_off_the_advantage_points_where_dice_does():
    """One task, no discount, no baseline, ratios one: centred returns, in units of deviation."""
    setting = Setting()
    whole = setting.batch
    one = gmps.methods.maml.meta_exploration.objective.rows(whole, slice(1, 2))
    _, exact = setting.gradients("dice", one)
    _, found = setting.gradients("advantage", one, discount=1.0, baseline="zero")
    # Centring takes a constant times the score of all steps off.
    log_prob = partial(setting.networks.exploring, observation=one.shown.observation)
    learned = {n: v.clone().requires_grad_() for n, v in setting.theta.items()}
    log_prob(learned).log_prob(one.shown.action).mean().backward()
    own = [n for n in found if n.startswith(EXPLORER)]
    basis = torch.stack(
        [
            torch.cat([g[n].flatten() for n in own])
            for g in (exact, {n: learned[n].grad for n in own})
        ]
    )
    target = torch.cat([found[n].flatten() for n in own])
    weights = torch.linalg.lstsq(basis.T, target[:, None]).solution[:, 0]
    torch.testing.assert_close(weights @ basis, target)
    assert weights[0] > 0


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("goal", ["paid", "imitated"])
def test_all_tasks_at_once_are_the_mean_over_a_loop(credit, goal, monkeypatch):
    setting = Setting(goal=goal)
    whole = setting.gradients(credit, explorer_weight=0.5)
    monkeypatch.setitem(gmps.methods.maml.meta_exploration.objective.SAMPLES_AT_ONCE, "cpu", 1)
    assert len(list(setting.batch.parts())) == M
    losses, found = setting.gradients(credit, explorer_weight=0.5)
    torch.testing.assert_close(torch.stack(losses), torch.stack(whole[0]))
    for name, value in whole[1].items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("inner", INNER)
def test_what_is_behind_an_end_changes_nothing(inner, credit):
    setting = Setting(inner)
    other = setting.batch
    dead = ~setting.alive
    changed = [part.clone() for part in setting.shown]
    for part in changed[:3]:
        part[dead] = part[dead] + 1
    twin = setting.batch._replace(shown=Shown(*changed))
    wanted, found = (setting.gradients(credit, batch)[1] for batch in (other, twin))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)


def test_one_policy_that_explores_and_exploits_learns_by_both():
    setting = Setting(shared=True)
    assert not any(n.startswith(EXPLORER) for n in setting.theta)
    _, credited = setting.gradients("dice")
    paid = {n: v.clone().requires_grad_() for n, v in setting.theta.items()}
    setting.goal_loss(paid, setting.networks.adapted(paid, ALPHA, setting.shown)).backward()
    assert not torch.allclose(credited["policy.0.weight"], paid["policy.0.weight"].grad)
    torch.testing.assert_close(credited["model.0.weight"], paid["model.0.weight"].grad)


def test_e_maml_credits_every_step_with_what_its_task_was_paid():
    setting = Setting()
    _, found = setting.gradients("e-maml")
    learned = {n: v.clone().requires_grad_() for n, v in setting.theta.items()}
    log_prob = setting.networks.exploring(learned, setting.shown.observation).log_prob(
        setting.shown.action
    )
    likely = (setting.shown.weight * log_prob).sum((1, 2))
    (-(likely * setting.batch.paid).mean()).backward()
    for name in [n for n in found if n.startswith(EXPLORER)]:
        torch.testing.assert_close(found[name], learned[name].grad)


def test_the_cumulative_product_of_worked_numbers():
    log_prob, old = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[0.0, 0.0, 1.0]])
    torch.testing.assert_close(dice(log_prob, old), torch.tensor([[1.0, torch.e, torch.e**2]]))


def options(**changes):
    return options_of(NAME, **{"hidden_width": 16, "latent_width": 4, **changes})


def problem_of(num_tasks=3):
    tasks = make_tasks(Point(), "uniform", "train", num_tasks=num_tasks)
    return Problem.in_family(Point(), "dense", "state", tasks)


def run_of(folder, problem, chosen):
    run = Run(folder, NAME, chosen, "point")
    try:
        return train(run, problem)
    finally:
        run.close()


def learner_with(**changes):
    return find_method(NAME).code.start(Training(problem_of(), options(**changes)))


def rollouts_of(reward):
    shape = reward.shape
    seen, action = torch.zeros(*shape, 2), torch.zeros(*shape, 2)
    alive = torch.ones(shape, dtype=torch.bool)
    return Rollouts(seen, action, reward, reward, alive, ~alive)


def test_what_the_step_goes_by():
    """Returns to come, rewards, or advantages; of two episodes of two steps."""
    reward = torch.tensor([[[1.0, 3.0], [2.0, 0.0]]])
    given = rollouts_of(reward)
    found = {each: learner_with(inner=each, discount=0.5).shown(given).target for each in INNER}
    torch.testing.assert_close(found["return"], torch.tensor([[[2.5, 3.0], [2.0, 0.0]]]))
    torch.testing.assert_close(found["reward"], reward)
    assert float(found["policy-gradient"].mean()) == pytest.approx(0, abs=1e-6)


def test_a_further_step_takes_all_episodes_from_the_latent_before_adaptation():
    """Two steps on two episodes each are one on the four."""
    learner, reward = learner_with(), torch.rand(2, 4, 5)
    halves = [rollouts_of(reward[:, own]) for own in (slice(2), slice(2, 4))]
    belief = learner.begin(2)
    for step, half in enumerate(halves):
        belief = learner.adapt(belief, step, half, None)
    once = learner.adapt(learner.begin(2), 0, rollouts_of(reward), None)
    torch.testing.assert_close(belief.latent, once.latent)
    start = learner.begin(2).latent
    twice = learner.scaled(2.0).adapt(learner.begin(2), 0, rollouts_of(reward), None)
    torch.testing.assert_close(twice.latent - start, 2 * (once.latent - start))


def test_who_explores_does_not_depend_on_the_belief_and_who_exploits_does():
    learner, problem = learner_with(), problem_of()
    sampler = problem.sampler(problem.tasks, explore=2, mean=1)
    one = roll_outs(sampler, learner)
    other_belief = Belief(learner.begin(3).latent + 1)
    begin = type(learner).begin
    type(learner).begin = lambda self, num: other_belief
    try:
        other = roll_outs(sampler, learner)
    finally:
        type(learner).begin = begin
    assert torch.equal(one.explored.rollouts.action, other.explored.rollouts.action)
    assert not torch.equal(one.judged.rollouts.action, other.judged.rollouts.action)


@pytest.mark.parametrize("changes", [{}, {"rollouts_per_task": 1}, {"shared": True}], ids=str)
def test_counts_roll_outs_of_both_policies(changes, tmp_path):
    chosen = options(iterations=2, meta_batch=2, **changes)
    trained = run_of(tmp_path / "run", problem_of(), chosen)
    assert trained.spent.meta_training == 2 * 2 * 2 * chosen.rollouts_per_task * 20
    assert trained.spent.tuning == trained.spent.demonstrations == 0
    assert trained.finished


def test_guided_by_demonstrations_nobody_exploits_and_all_is_counted(point_demos, tmp_path):
    demos, chosen = load_demos(point_demos, 2), options(imitate=True, iterations=2)
    trained = trained_in(tmp_path / "run", demos, NAME, chosen)
    assert trained.spent.meta_training == 2 * 3 * 3 * 20  # iterations, tasks, K, T
    assert trained.spent.demonstrations == demos.num_steps
    (*_, last) = read_scalars(tmp_path / "run" / "metrics.csv")
    assert "return_post" not in last
    assert chosen.told(images=False) == "demonstrations by task"
    assert not options().told(images=False)
    mean, _ = demos.statistics(demos.observation)
    assert torch.equal(trained.learner.networks.policy.feature_mean, mean)


@pytest.mark.parametrize(
    "changes",
    [
        {"imitate": True},
        {"inner": "policy-gradient"},
        {"shared": True},
        {"credit": "e-maml", "inner": "reward"},
        {"credit": "dice", "meta_batch": 2},
    ],
    ids=str,
)
def test_other_forms_resume_to_the_bit(changes, tmp_path, point_demos):
    """What `test_methods` does not: from the checkpoint after the second of four iterations."""
    demos = load_demos(point_demos, 2)
    chosen = options(**changes)
    whole = trained_in(tmp_path / "whole", demos, NAME, chosen)
    rest = halted_and_resumed(tmp_path / "halted", demos, NAME, chosen)
    for n, value in whole.learner.tensors().items():
        assert torch.equal(rest.learner.tensors()[n], value)


def test_every_part_learns_each_at_its_rate(point_demos):
    learner, problem = learner_of(load_demos(point_demos, 2), NAME, options())
    code = find_method(NAME).code
    found = next(code.train(Training(problem, options()), learner, {}, 0)).learner.meta.theta
    largest = {}
    for name in [n for n, value in found.items() if value.numel()]:
        part = name.split(".")[0]
        off = float((found[name] - learner.meta.theta[name]).abs().max())
        largest[part] = max(largest.get(part, 0), off)
    rates = {"policy": 7e-4, "model": 7e-4, "latent": 3.5e-5, "explorer": 7e-5}
    for part, rate in rates.items():  # five steps of Adam, each about as long as its rate
        assert rate < largest[part] < 5.5 * rate


def test_where_all_are_paid_alike_the_explorer_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Point, "reward", lambda _, kind, terms, *others: 0 * terms["point_pos_w_m"][:, 0]
    )
    chosen = options(iterations=2)
    start = find_method(NAME).code.start(Training(problem_of(), chosen)).meta.theta
    theta = run_of(tmp_path / "run", problem_of(), chosen).learner.meta.theta
    for name in [n for n in start if n.startswith(EXPLORER)]:
        assert torch.equal(theta[name], start[name])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"credit": "e-maml", "imitate": True}, "with --imitate nobody pays them"),
        ({"shared": True, "explorer_lr": 1e-3}, "has no effect with --shared"),
        ({"explorer_weight": 2.0}, "--explorer-weight has no effect without --imitate"),
        ({"demos_per_task": 2}, "--demos-per-task has no effect without --imitate"),
        ({"inner": "value"}, "Option inner: 'value' is none of"),
        ({"latent_width": 0}, "Option latent_width must be positive"),
    ],
)
def test_options_that_mean_nothing_are_one_sentence(given, said):
    with pytest.raises(DemokitError, match=said):
        find_method(NAME).options(**given)


def test_to_imitate_it_is_shown_something(tmp_path, invoke):
    asked = ("meta-train", "--env", "point", "--method", NAME, "--imitate")
    said = invoke(*asked, "--output-dir", tmp_path / "run", exit_code=1).output
    assert "Missing option --demos" in said
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_with_the_networks_of_another_form_is_refused(point_demos):
    learner, problem = learner_of(load_demos(point_demos, 2), NAME, options())
    other = options(shared=True)
    with pytest.raises(ValueError, match="parameters are not those of its configuration"):
        find_method(NAME).code.load(problem, other, learner.tensors(), {})


def test_images_are_refused(tmp_path):
    from demokit.envs import make_family
    from demokit.envs.vision import Vision

    push = make_family("push")
    tasks = make_tasks(push, "paper", "train", num_tasks=2)
    problem = Problem.in_family(push, "dense", Vision(), tasks)
    with pytest.raises(DemokitError, match="acts from states, not from images"):
        run_of(tmp_path / "run", problem, replace(options()))


@pytest.mark.parametrize(
    "idle", [{"clip": 0.1}, {"gae_lambda": 0.5}, {"baseline": "zero"}], ids=str
)
def test_where_no_policy_gains_by_advantages_their_options_are_refused(idle):
    with pytest.raises(DemokitError, match="has no effect with --imitate and --credit dice"):
        options(imitate=True, credit="dice", **idle)
    options(imitate=True, credit="dice")
    options(credit="dice", **idle)


@pytest.mark.parametrize("used", [{"gae_lambda": 0.5}, {"baseline": "zero"}], ids=str)
def test_where_the_latent_goes_by_advantages_their_options_count(used):
    inner, given = {"inner": "policy-gradient"}, rollouts_of(torch.rand(1, 3, 4))
    options(imitate=True, credit="dice", **inner, **used)
    one, other = (learner_with(**inner, **more).shown(given).target for more in ({}, used))
    assert not torch.allclose(one, other)
    with pytest.raises(DemokitError, match="--clip has no effect with --imitate"):
        options(imitate=True, credit="dice", clip=0.1, **inner)
