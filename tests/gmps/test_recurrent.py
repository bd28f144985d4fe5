"""Methods that remember: one memory for a trial, whole-trial PPO, and what they refuse."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from short_run import REMEMBERING, options_of, roll_outs, trained_in

import demokit
from demokit.envs.point import Point
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.learning.checkpoint import load_checkpoint, save_checkpoint
from demokit.types import Task
from gmps.beliefs import tensors_of
from gmps.distributed import WHOLE, Part, World
from gmps.evaluation import stages
from gmps.experience.actor import Seen
from gmps.experience.demos import load_demos
from gmps.experience.rollouts import Rollouts
from gmps.experience.trials import Trials
from gmps.loop import train
from gmps.method import find_method
from gmps.methods.memory.algorithm import TrialLoss, _scale, drawn_tasks, targets
from gmps.policies.meta_params import MetaParams
from gmps.problem import Problem, Training
from gmps.runs.folder import Run, read_scalars
from gmps.steps.advantage import trial_advantages
from gmps.steps.ppo import clipped_value_loss

NUM_TASKS, EPISODES, T, DOUBLE = 3, 3, 6, torch.float64
NEAR = {"rtol": 1e-5, "atol": 1e-5}


def problem_of(num=5):
    return Problem.in_family(
        Point(), "dense", "state", make_tasks(Point(), "uniform", "train")[:num]
    )


def fresh(name, **changes):
    """A learner before training, whose policy has something to say."""
    small = {"hidden_width": 8, "observation_embedding": 6, **changes}
    options = options_of(name, **small)
    return find_method(name).code.start(Training(problem_of(), options)), options


def in_double(learner):
    """The same off the kink of ReLU at zero, where the biases of a first step are."""
    rng = torch.Generator().manual_seed(7)
    theta = {
        name: value.double() + 0.1 * torch.randn(value.shape, generator=rng, dtype=DOUBLE)
        for name, value in learner.meta.theta.items()
    }
    return learner.with_meta(MetaParams(theta, {}))


def rollouts_of(seed, lengths):
    """An episode of each task, which ends after so many steps."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(len(lengths), 1, T, *shape, generator=rng)

    alive = torch.arange(T) < torch.tensor(lengths)[:, None, None]
    ended = alive & ~torch.nn.functional.pad(alive[..., 1:], (0, 1), value=True)
    return Rollouts(normal(2), normal(2), normal(), normal() * alive, alive, ended)


LENGTHS = ((T, 4, T), (T, 2, 3), (5, T, T))


def gathered():
    return [rollouts_of(seed, lengths) for seed, lengths in enumerate(LENGTHS)]


def lived(learner, episodes):
    """The belief after episodes that an actor lives through, and its mean actions in them."""
    belief, means = learner.begin(NUM_TASKS), []
    for step, own in enumerate(episodes):
        actor = learner.explorer(belief, step, 1, [])
        memory, action, reward = actor.memory, torch.zeros(NUM_TASKS, 1, 2), torch.zeros(3, 1)
        for t in range(T):
            seen = Seen(t, own.observation[:, :, t], action, reward, own.alive[:, :, t])
            dist, memory = actor(memory, seen)
            means.append(dist.mean[:, 0])
            action, reward = own.action[:, :, t], own.reward[:, :, t]
        belief = learner.adapt(belief, step, own, memory)
    return belief, torch.stack(means, 1)


def said_of(policy, theta, belief):
    """What policy and memory come to in a step that begins another episode."""
    now = torch.zeros(NUM_TASKS, 2), belief.action, belief.reward, torch.ones(NUM_TASKS).bool()
    return policy.step(policy.ready(theta), belief, now, torch.ones(NUM_TASKS).bool())[0].mean


@pytest.mark.parametrize("name", REMEMBERING)
def test_acting_through_episodes_is_one_unroll(name):
    """Whatever episodes end early: the steps behind an end are not seen, and change nothing."""
    learner, _ = fresh(name)
    episodes = gathered()
    belief, means = lived(learner, episodes)
    trials = Trials.of(episodes)
    dist, _ = learner.policy.unroll(learner.meta.theta, trials)
    alive = torch.cat([own.alive[:, 0] for own in episodes], 1)
    for task in range(NUM_TASKS):
        torch.testing.assert_close(
            dist.mean[task][trials.alive[task]], means[task][alive[task]], **NEAR
        )
    last = [own.alive[:, 0].sum(1) - 1 for own in episodes][-1]
    tasks = torch.arange(NUM_TASKS)
    assert torch.equal(belief.reward, episodes[-1].reward[tasks, 0, last])
    assert torch.equal(belief.action, episodes[-1].action[tasks, 0, last])


@pytest.mark.parametrize("name", REMEMBERING)
def test_dead_steps_change_nothing(name):
    learner, options = fresh(name)
    episodes = gathered()
    noise = [
        replace(
            own,
            observation=own.observation + 9 * ~own.alive[..., None],
            action=own.action + 1e6 * ~own.alive[..., None],
        )
        for own in episodes
    ]
    (belief, _), (other, _) = lived(learner, episodes), lived(learner, noise)
    assert torch.equal(belief.action, other.action)
    next_one = partial(said_of, learner.policy, learner.meta.theta)
    assert torch.equal(next_one(belief), next_one(other))
    one, two = (loss_of(learner, Trials.of(each), options) for each in (episodes, noise))
    assert torch.equal(one(learner.meta.theta)[0], two(learner.meta.theta)[0])
    gradient = torch.func.grad(lambda theta: two(theta)[0])(learner.meta.theta)
    assert all(bool(value.isfinite().all()) for value in gradient.values())


@pytest.mark.parametrize("name", REMEMBERING)
def test_the_last_reward_of_an_episode_reaches_the_next(name):
    learner, _ = fresh(name)
    episodes = gathered()[:1]
    paid = replace(episodes[0], reward=episodes[0].reward.clone())
    paid.reward[1, 0, LENGTHS[0][1] - 1] += 1
    (belief, _), (other, _) = lived(learner, episodes), lived(learner, [paid])
    assert other.reward.tolist() == (belief.reward + torch.tensor([0.0, 1, 0])).tolist()
    next_one = partial(said_of, learner.policy, learner.meta.theta)
    differs = (next_one(belief) != next_one(other)).any(1)
    assert differs.tolist() == [False, True, False]


@pytest.mark.parametrize("name", REMEMBERING)
def test_later_inputs_are_not_seen(name):
    learner, _ = fresh(name)
    trials = Trials.of(gathered())
    for t in (0, 7, 12):
        changed = Trials(*(getattr(trials, each) for each in trials.__dataclass_fields__))
        later = torch.arange(trials.alive.shape[1]) >= t
        changed = replace(
            changed,
            observation=trials.observation + (later & (torch.arange(len(later)) > t))[:, None],
            action=trials.action + later[:, None],
            reward=trials.reward + later,
        )
        theta = learner.meta.theta
        (dist, value), (other, its) = (learner.policy.unroll(theta, e) for e in (trials, changed))
        assert torch.equal(dist.mean[:, : t + 1], other.mean[:, : t + 1])
        assert torch.equal(value[:, : t + 1], its[:, : t + 1])
        assert not torch.equal(dist.mean[:, t + 1], other.mean[:, t + 1])


@pytest.mark.parametrize("name", REMEMBERING)
def test_several_episodes_a_step_are_read_one_after_the_other(name):
    learner, _ = fresh(name)
    episodes = gathered()
    names = Rollouts.__dataclass_fields__
    together = Rollouts(*(torch.cat([getattr(own, n) for own in episodes], 1) for n in names))
    belief, _ = lived(learner, episodes)
    begun = learner.begin(NUM_TASKS)
    found = learner.adapt(begun, 0, together, learner.explorer(begun, 0, EPISODES, []).memory)
    next_one = partial(said_of, learner.policy, learner.meta.theta)
    torch.testing.assert_close(next_one(found), next_one(belief))
    assert torch.equal(found.reward, belief.reward)


@pytest.mark.parametrize("name", REMEMBERING)
def test_being_judged_changes_no_memory(name):
    """What is believed after episodes with judged ones beside them is what they alone lead to."""
    learner, _ = fresh(name)
    problem = problem_of(NUM_TASKS)
    sampler = problem.sampler(problem.tasks, explore=1, mean=3)
    found = list(stages(learner, sampler, np.random.default_rng, 2))
    believed = [{n: v.clone() for n, v in tensors_of(each.belief).items()} for each in found]
    for i, stage in enumerate(found[:-1]):
        rollouts = stage.sampled.explored.rollouts
        memory = learner._read(stage.belief, rollouts, 0)
        again = learner.adapt(stage.belief, i, rollouts, memory)
        for n, value in tensors_of(again).items():
            torch.testing.assert_close(value, believed[i + 1][n], **NEAR)
        assert all(torch.equal(v, believed[i][n]) for n, v in tensors_of(stage.belief).items())


def loss_of(learner, trials, options, chosen=(0, 1, 2), part=WHOLE):
    goal = targets(learner, trials, torch.ones(()), options, part)
    own = torch.zeros(len(goal.steps), dtype=torch.bool)
    own[list(chosen)] = True
    return TrialLoss.of(learner.policy, trials, goal, own, options)


def as_double(trials):
    names = trials.__dataclass_fields__
    values = (getattr(trials, name) for name in names)
    return Trials(*(v.double() if v.is_floating_point() else v for v in values))


@pytest.mark.parametrize("name", REMEMBERING)
def test_the_gradient_of_the_loss_is_that_of_finite_differences(name):
    """Through whole trials, episodes that end early among them."""
    learner, options = fresh(name, clip=0.2, entropy_weight=0.3)
    learner, trials = in_double(learner), as_double(Trials.of(gathered()))
    with torch.no_grad():  # so that ratios are about 1, and values are about the targets
        dist, _ = learner.policy.unroll(learner.meta.theta, trials)
    trials = replace(trials, log_prob=dist.log_prob(trials.action) + 0.05 * trials.log_prob)
    loss = loss_of(learner, trials, options, chosen=(0, 1))
    theta, rng = learner.meta.theta, torch.Generator().manual_seed(1)
    gradient = torch.func.grad(lambda at: loss(at)[0])(theta)
    for part in {n.split(".")[0] for n in theta}:
        along = {
            n: torch.randn(v.shape, generator=rng, dtype=DOUBLE) * (n.split(".")[0] == part)
            for n, v in theta.items()
        }
        ends = [loss({n: v + s * along[n] for n, v in theta.items()})[0] for s in (1e-6, -1e-6)]
        wanted = sum((gradient[n] * along[n]).sum() for n in theta)
        assert float(wanted) != 0, part
        torch.testing.assert_close((ends[0] - ends[1]) / 2e-6, wanted, rtol=1e-5, atol=1e-8)


def test_sampled_likelihoods_are_those_of_the_unroll(demos_of_point):
    """The ratio is 1 before the first step of Adam."""
    learner, _ = fresh("rl2")
    explored = roll_outs(demos_of_point.sampler(demos_of_point.tasks, explore=1), learner).explored
    trials = Trials.of([explored.rollouts])
    dist, _ = learner.policy.unroll(learner.meta.theta, trials)
    torch.testing.assert_close(dist.log_prob(trials.action), trials.log_prob, **NEAR)


@pytest.fixture
def demos_of_point():
    return problem_of()


def test_advantages_go_on_across_the_ends_of_episodes():
    """By hand: two episodes of two steps; the last trial ends, the first is cut by the horizon."""
    reward = torch.tensor([[1.0, 2, 3, 4], [1.0, 2, 3, 0]])
    value = torch.tensor([[0.5, 1, 1.5, 2], [0.5, 1, 1.5, 9]])
    alive = torch.tensor([[True] * 4, [True, True, True, False]])
    found = trial_advantages(
        reward, value, alive, torch.tensor([False, True]), discount=0.5, gae_lambda=0.5
    )
    # delta: 1 + .5 - .5, 2 + .75 - 1, 3 + 1 - 1.5, cut; and at an end 3 - 1.5
    cut = [1 + 0.25 * (1.75 + 0.25 * 2.5), 1.75 + 0.25 * 2.5, 2.5, 0]
    ended = [1 + 0.25 * (1.75 + 0.25 * 1.5), 1.75 + 0.25 * 1.5, 1.5, 0]
    torch.testing.assert_close(found, torch.tensor([cut, ended]))


def test_trials_leave_out_what_is_behind_an_end():
    trials = Trials.of(gathered())
    assert trials.alive.sum(1).tolist() == [T + T + 5, 4 + 2 + T, T + 3 + T]
    assert trials.first[1].nonzero().flatten().tolist()[:3] == [0, 4, 6]
    assert trials.ended.tolist() == [True, False, False]
    assert torch.equal(trials.reward[1, 4:6], gathered()[1].reward[1, 0, :2])


def test_the_value_loss_is_the_worse_of_two():
    value, old, target = torch.tensor([1.5, 0.5, 4.0]), torch.ones(3), torch.tensor([2.0, 0.5, 0])
    # |1.5-2| and |1.1-2|; 0 and |.9-.5|; |4|-.5 and |1.1|-.5
    wanted = torch.tensor([0.81 / 2, 0.16 / 2, 3.5]) / 2
    torch.testing.assert_close(clipped_value_loss(value, old, target, 0.1), wanted)


def test_rewards_are_in_deviations_of_what_was_paid():
    paid = torch.tensor([4.0, 8.0, 32.0])  # 4 sums of mean 2, mean square 8
    assert float(_scale(paid.double())) == pytest.approx(2)
    assert float(_scale(torch.tensor([4.0, 8.0, 16.0]))) == 1  # all alike


def test_the_first_that_is_paid_is_at_most_ten_of_these():
    learner, options = fresh("rl2")
    trials = Trials.of(gathered())
    trials = replace(trials, reward=(trials.reward > 1).float())
    scales = torch.tensor([1 / 196, 1 / 10, 1 / 5])
    rare, ten, five = (targets(learner, trials, each, options, WHOLE).returns for each in scales)
    assert torch.equal(rare, ten)
    assert not torch.equal(ten, five)


def test_the_loss_of_two_processes_is_that_of_one():
    """Each has some of the trials, and of a share of them perhaps none."""
    learner, options = fresh("rl2")
    trials = Trials.of(gathered())
    goal = targets(learner, trials, torch.ones(()), options, WHOLE)
    for chosen in ([True, True, False], [True, False, False], [False, True, True]):
        some = torch.tensor(chosen)
        whole = TrialLoss.of(learner.policy, trials, goal, some, options)(learner.meta.theta)
        parts = []
        for own, weight in ((slice(2), 2 / 3), (slice(2, 3), 1 / 3)):
            part = Part(World(0, 2), 3, own, weight)
            per_step = {n: getattr(goal, n)[own] for n in ("advantage", "value", "returns")}
            its = goal._replace(**per_step, part=part)
            mine = trials.rows(torch.arange(3)[own])
            found = TrialLoss.of(learner.policy, mine, its, some, options)(learner.meta.theta)
            parts.append(weight * torch.stack(found))
        torch.testing.assert_close(sum(parts), torch.stack(whole))


def test_the_log_says_the_deviation_of_actions():
    """As MAML's does: outputs of deviation 1, of which -10 to 10 span the actions."""
    learner, options = fresh("rl2", action_scale=10.0, outer_epochs=1)
    done = next(find_method("rl2").code.train(Training(problem_of(), options), learner, {}, 0))
    assert done.scalars["std"] == pytest.approx(0.1, rel=0.01)


def test_tasks_take_turns():
    training = Training(problem_of(5), options_of("rl2", trials=12, minibatches=1))
    drawn = drawn_tasks(training, np.random.default_rng(0))
    counts = np.bincount(drawn, minlength=5)
    assert (len(drawn), counts.min(), counts.max()) == (12, 2, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rollouts_per_task": 2}, "Option rollouts_per_task: at most 1, not 2"),
        ({"trials": 3, "minibatches": 4}, "Option minibatches: 3 --trials are not 4 shares"),
    ],
)
def test_options_that_cannot_be(changes, said):
    with pytest.raises(DemokitError, match=said):
        options_of("rl2", **changes)


def test_images_are_refused(tmp_path, invoke):
    args = ("meta-train", "--method", "rl2", "--env", "push", "--observation", "vision")
    said = invoke(*args, "--output-dir", tmp_path / "run", exit_code=1).output
    assert "acts from states, not from images" in said


def test_a_checkpoint_of_another_shape_is_one_sentence(point_demos, tmp_path):
    trained_in(tmp_path, load_demos(point_demos, 2), "rl2", options_of("rl2", iterations=1))
    path = tmp_path / "checkpoint.safetensors"
    tensors, header = load_checkpoint(path)
    name = "learner.theta.body.hidden.weight"
    save_checkpoint(path, {**tensors, name: tensors[name].mT}, header)
    with pytest.raises(DemokitError, match="its parameters are not those of its configuration"):
        demokit.load_policy(path)


@pytest.mark.parametrize("name", REMEMBERING)
def test_an_adapted_policy_is_kept_and_goes_on(name, point_demos, tmp_path):
    """What is known of a task, in a file and back: the same actions, and more episodes."""
    chosen = options_of(name, iterations=1)
    trained_in(tmp_path / "run", load_demos(point_demos, 2), name, chosen)
    agent = demokit.load_policy(tmp_path / "run")
    trial = agent.new_task(steps=2)
    while trial.gathering:
        trial.act(np.zeros(2))
        trial.record(1.0, terminated=trial.episode == 0)
    adapted = trial.adapted()
    adapted.save(tmp_path / "adapted.safetensors")
    again = demokit.load_policy(tmp_path / "adapted.safetensors")
    seen = np.array([0.2, -0.1])
    for _ in range(3):
        np.testing.assert_array_equal(again.act(seen, reward=0.5), adapted.act(seen, reward=0.5))
    assert not np.array_equal(agent.act(seen), adapted.act(seen))
    tensors, header = load_checkpoint(tmp_path / "adapted.safetensors")
    for key in [n for n in tensors if n.startswith("belief.")]:
        wide = torch.cat([tensors[key]] * 2, -1) if tensors[key].ndim > 1 else tensors[key][:0]
        save_checkpoint(tmp_path / "bad.safetensors", {**tensors, key: wide}, header)
        with pytest.raises(DemokitError, match="another version of demokit or by hand"):
            demokit.load_policy(tmp_path / "bad.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", REMEMBERING)
def test_the_second_episode_is_better(name, tmp_path, monkeypatch):
    """Two tasks, told apart by what is paid only: right or left."""
    monkeypatch.setattr(Point, "horizon", 10)
    tasks = tuple(Task("point", f"t/{x}", (x, 0.0), "train") for x in (-1.0, 1.0))
    monkeypatch.setattr(
        Point,
        "reward",
        lambda _, kind, terms, *others: np.sign(others[0][:, 0]) * terms["point_pos_w_m"][:, 0],
    )
    problem = Problem.in_family(Point(), "dense", "state", tasks)
    short = {"iterations": 150, "eval_every": 149, "hidden_width": 32, "threads": 1}
    options = find_method(name).options(**short, outer_epochs=4)
    run = Run(tmp_path / "run", name, options, "tasks")
    try:
        train(run, problem)
    finally:
        run.close()
    rows = read_scalars(tmp_path / "run" / "metrics.csv")
    first, last = (np.mean([row[n] for row in rows[-5:]]) for n in ("return_first", "return_last"))
    assert last > max(first, 2.5) + 0.4
