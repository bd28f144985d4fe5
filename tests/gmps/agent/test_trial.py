"""A trial in a loop by hand leads where a batch of the same roll-outs leads, for every method."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from by_hand import METHODS, TOLD, context_of, drive, held_out, same
from short_run import DEMOS, learner_of, options_of, trained_in

import demokit
from demokit.errors import DemokitError
from demokit.random import stream
from gmps.agent.agent import TrainedAgent
from gmps.beliefs import tensors_of
from gmps.evaluation import stages
from gmps.experience.demos import load_demos
from gmps.experience.observation import each
from gmps.method import HasStepSize, IsTold, find_method
from gmps.runs.checkpoint import Trained


@pytest.fixture(params=METHODS)
def agent(request, runs):
    return demokit.load_policy(runs / request.param)


def test_a_loop_by_hand_believes_what_a_batch_believes_bit_for_bit(agent):
    task, problem = held_out(agent), agent.trained.problem
    sampler = problem.sampler((task,), explore=agent.episodes_per_step)
    streams = partial(stream, 5, "trial", agent.trained.options.seed)
    *_, last = stages(agent.trained.learner, sampler, streams, 2)
    trial = agent.new_task(steps=2, context=context_of(agent, task), seed=5)
    adapted = drive(trial, agent, task)
    assert same(adapted.belief, last.belief)
    assert (adapted.steps, adapted.episodes) == (2, 2 * agent.episodes_per_step)
    assert agent.steps == 0
    if agent.method not in TOLD:
        assert not same(adapted.belief, agent.belief)


def test_a_trial_in_parts_goes_where_a_whole_one_goes(agent):
    task = held_out(agent)
    told = context_of(agent, task)
    whole = drive(agent.new_task(steps=2, context=told), agent, task)
    parts = drive(agent.new_task(context=told), agent, task)
    parts = drive(parts.same_task(), agent, task)
    assert same(whole.belief, parts.belief)
    assert parts.steps == 2


def test_several_episodes_are_seen_as_a_batch_sees_them(agent):
    """Rollouts in place of the run's own: of methods that take one episode a step, too."""
    task, problem = held_out(agent), agent.trained.problem
    sampler = problem.sampler((task,), explore=4)
    streams = partial(stream, 0, "trial", agent.trained.options.seed)
    *_, last = stages(agent.trained.learner, sampler, streams, 1)
    trial = agent.new_task(episodes=4, rollouts=4, context=context_of(agent, task))
    assert trial.episodes == 4
    assert same(drive(trial, agent, task).belief, last.belief)


def test_what_lies_behind_an_early_end_does_not_count(agent):
    """The same episodes, fed to `adapt` with rubbish behind their ends."""
    task = held_out(agent)
    trial = agent.new_task(rollouts=3, context=context_of(agent, task))
    fed = {}

    def learned(belief, step, gathered, memory):
        fed.update(gathered=gathered, memory=memory)
        return type(agent.learner).adapt(agent.learner, belief, step, gathered, memory)

    trial._learner = Spied(trial._learner, learned)
    after = drive(trial, agent, task, ends=lambda episode, t: t == 5 * (episode + 1))
    gathered = fed["gathered"]
    assert gathered.alive[0].sum(1).tolist() == [5, 10, 15]
    assert gathered.reward[~gathered.alive].eq(0).all()
    assert gathered.observation.isfinite().all()
    dead = ~gathered.alive[..., None]
    # The state after the last action is one that counts.
    behind = torch.cat((dead[:, :, :1] & False, dead[:, :, :-1]), 2)
    other = replace(
        gathered,
        observation=each(lambda v: torch.where(behind, 7.0, v), gathered.observation),
        action=torch.where(dead, -3.0, gathered.action),
        log_prob=torch.where(dead[..., 0], 2.0, gathered.log_prob),
    )
    again = agent.learner.adapt(trial_belief(agent, task), 0, other, fed["memory"])
    for name, value in tensors_of(again).items():
        assert torch.allclose(value, tensors_of(after.belief)[name], atol=1e-5), name


def trial_belief(agent, task):
    learner = agent.trained.learner
    if isinstance(learner, IsTold):
        learner = learner.told(torch.tensor([task.context]))
    return learner.begin(1)


class Spied:
    """A learner whose adaptation is listened to."""

    def __init__(self, learner, adapt):
        self._learner, self.adapt = learner, adapt

    def __getattr__(self, name):
        return getattr(self._learner, name)


@pytest.mark.usefixtures("frail_ants")
@pytest.mark.parametrize("name", ["gmps", "imitation", "replay"])
def test_episodes_that_end_by_themselves(ant_demos, name):
    """An ant falls; a batch steps on unpaid, a loop begins the next episode."""
    demos = load_demos(ant_demos, DEMOS)
    learner, problem = learner_of(demos, name)
    if isinstance(learner, HasStepSize):
        learner = learner.with_step_size(0.01)
    agent = TrainedAgent(Trained(name, options_of(name), problem, learner, finished=True))
    task = problem.tasks[0]
    sampler = problem.sampler((task,), explore=4)
    *_, last = stages(learner, sampler, agent.streams(0), 1)
    adapted = drive(agent.new_task(rollouts=4), agent, task)
    before, _ = stages(learner, sampler, agent.streams(0), 1)
    lengths = before.sampled.explored.rollouts.alive[0].sum(1)
    assert lengths.min() < problem.family.horizon
    other = tensors_of(last.belief)
    for key, value in tensors_of(adapted.belief).items():
        assert torch.allclose(value, other[key], atol=1e-6), key


@pytest.mark.usefixtures("other_package")
def test_a_method_of_another_package_acts_and_is_kept(demos, tmp_path):
    """It knows nothing of agents, and its belief is one tensor."""
    folder, name = tmp_path / "run", "random-search"
    options = find_method(name).options(iterations=1, rollouts_per_task=3)
    trained_in(folder, demos, name, options)
    agent = demokit.load_policy(folder)
    task = held_out(agent)
    adapted = drive(agent.new_task(), agent, task)
    *_, last = stages(
        agent.trained.learner,
        agent.trained.problem.sampler((task,), explore=3),
        agent.streams(0),
        1,
    )
    assert torch.equal(adapted.belief, last.belief)
    adapted.save(tmp_path / "kept.safetensors")
    found = demokit.load_policy(tmp_path / "kept.safetensors")
    assert torch.equal(found.belief, last.belief)
    assert np.array_equal(found.act([0.0, 0.0]), adapted.act([0.0, 0.0]))


def test_an_adapted_policy_is_kept(agent, tmp_path):
    task = held_out(agent)
    adapted = drive(agent.new_task(context=context_of(agent, task)), agent, task)
    path = tmp_path / "point-7.safetensors"
    adapted.save(path)
    found = demokit.load_policy(path)
    assert same(found.belief, adapted.belief)
    assert (found.steps, found.episodes) == (1, agent.episodes_per_step)
    observations = np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(np.float32)
    for observation in observations:
        assert np.array_equal(found.act(observation), adapted.act(observation))
    further = [drive(each.same_task(), agent, task) for each in (found, adapted)]
    assert same(further[0].belief, further[1].belief)
    assert further[0].steps == 2
    forgotten = found.new_task(steps=0, context=context_of(agent, task)).adapted()
    assert same(forgotten.belief, trial_belief(agent, task))


def test_one_and_a_batch_act_alike(agent):
    if agent.method in TOLD:
        agent = agent.new_task(steps=0, context=(0.3, 0.2)).adapted()
    batch = np.random.default_rng(1).uniform(-1, 1, (5, 2))
    acted = agent.act(batch)
    assert acted.shape == (5, 2)
    assert acted.dtype == np.float32
    assert np.abs(acted).max() <= 1
    for observation, action in zip(batch, acted, strict=True):
        agent.reset()
        one = agent.act(observation)
        assert one.shape == (2,)
        assert np.allclose(one, action, atol=1e-6)


def test_replay_acts_by_time_until_it_is_reset(runs):
    agent = demokit.load_policy(runs / "replay")
    zeros = np.zeros(2)
    first, second = agent.act(zeros), agent.act(zeros)
    assert not np.array_equal(first, second)
    agent.reset()
    assert np.array_equal(agent.act(zeros), first)


def test_the_state_of_a_trial(runs):
    agent = demokit.load_policy(runs / "gmps")
    trial = agent.new_task(steps=2)
    assert (trial.gathering, trial.episode, trial.episodes) == (True, 0, 6)
    seeds = set()
    for episode in range(3):
        assert trial.episode == episode
        seeds.add(trial.start_seed)
        for t in range(agent.horizon):
            trial.act([0.0, 0.0])
            assert trial.record(-float(t)) == (t == agent.horizon - 1)
    assert len(seeds) == 3
    assert (trial.gathering, trial.episode) == (True, 3)
    assert trial.adapted().steps == 1


def test_a_discarded_episode_leaves_nothing(runs):
    agent = demokit.load_policy(runs / "gmps")
    task = held_out(agent)
    trial = agent.new_task()
    first = trial.act([0.0, 0.0])
    trial.record(100.0)
    trial.act([0.5, 0.5])
    trial.discard()
    assert np.array_equal(trial.act([0.0, 0.0]), first)
    trial.discard()
    assert same(drive(trial, agent, task).belief, drive(agent.new_task(), agent, task).belief)


def test_what_an_agent_says_of_itself(runs):
    agent = demokit.load_policy(str(runs / "gmps"))
    assert (agent.method, agent.family, agent.horizon) == ("gmps", "point", 20)
    assert agent.observation_shapes == {"": (2,)}
    assert len(agent.action_names) == 2
    assert (agent.steps, agent.episodes, agent.episodes_per_step) == (0, 0, 3)


BAD_OBSERVATIONS = {
    "another width": ([0.0] * 3, r"shape \(3,\) .* vector of 2 numbers: point_pos_w_m \(2\)"),
    "no number": (["a", "b"], "type <U1"),
    "nothing": (None, "type object"),
    "a mapping": ({"image": 1}, "mapping of image"),
    "ragged": ([[0.0, 1.0], [0.0]], "no array of numbers"),
    "NaN": ([0.0, np.nan], "Component 1 of point_pos_w_m is nan"),
    "too large for float32": ([1e300, 0.0], "Component 0 of point_pos_w_m is inf"),
    "three axes": (np.zeros((1, 1, 2)), r"shape \(1, 1, 2\)"),
}


@pytest.mark.parametrize(("given", "said"), BAD_OBSERVATIONS.values(), ids=BAD_OBSERVATIONS)
def test_an_observation_that_is_none_is_one_sentence(runs, given, said):
    agent = demokit.load_policy(runs / "gmps")
    for act in (agent.act, agent.new_task().act):
        with pytest.raises(DemokitError, match=said):
            act(given)


def test_a_trial_says_what_comes_next(runs):
    agent = demokit.load_policy(runs / "gmps")
    trial = agent.new_task()
    with pytest.raises(DemokitError, match="act comes first"):
        trial.record(1.0)
    with pytest.raises(DemokitError, match="one observation"):
        trial.act(np.zeros((2, 2)))
    trial.act([0.0, 0.0])
    with pytest.raises(DemokitError, match="record it before"):
        trial.act([0.0, 0.0])
    for bad, said in ((np.nan, "reward is nan"), ("1", "is a number"), ([1.0, 2.0], "is a number")):
        with pytest.raises(DemokitError, match=said):
            trial.record(bad)
    with pytest.raises(DemokitError, match="true or false"):
        trial.record(1.0, "no")
    with pytest.raises(DemokitError, match="shape"):
        trial.record(1.0, True, final_observation=[1.0])
    with pytest.raises(DemokitError, match="3 of the 3 episodes of a step of gmps are missing"):
        trial.adapted()
    trial = drive_to_the_end(trial)
    for late in (lambda: trial.act([0.0, 0.0]), lambda: trial.start_seed):
        with pytest.raises(DemokitError, match="trial is complete"):
            late()
    with pytest.raises(DemokitError, match="act comes first"):
        trial.record(1.0)


def drive_to_the_end(trial):
    trial.discard()
    while trial.gathering:
        trial.act([0.0, 0.0])
        trial.record(0.0, truncated=True)
    return trial


def test_what_cannot_be_tried_is_one_sentence(runs):
    agent = demokit.load_policy(runs / "gmps")
    refused = [
        ({"steps": 1, "episodes": 3}, "not both"),
        ({"steps": -1}, "-1 steps"),
        ({"episodes": 4}, "multiple of 3"),
        ({"episodes": -3}, "multiple of 3"),
        ({"rollouts": 1}, "2 episodes or more"),
        ({"rollouts": 10**12}, "10000 episodes at most"),
        ({"context": (0.0, 0.0)}, "told no context"),
        ({"steps": 1.5}, "steps is a whole number, not 1.5"),
        ({"steps": True}, "steps is a whole number"),
        ({"episodes": "6"}, "episodes is a whole number, not '6'"),
        ({"rollouts": 2.5}, "rollouts is a whole number"),
        ({"seed": 0.5}, "seed is a whole number"),
        ({"seed": -1}, "from 0 to"),
    ]
    for options, said in refused:
        with pytest.raises(DemokitError, match=said):
            agent.new_task(**options)
    oracle = demokit.load_policy(runs / "oracle")
    with pytest.raises(DemokitError, match=r"new_task\(context=...\), 2 numbers"):
        oracle.act([0.0, 0.0])
    for context in ((0.0,), (0.0, np.nan), None):
        with pytest.raises(DemokitError, match=r"2 (finite )?numbers"):
            oracle.new_task(context=context)


def test_a_run_without_a_step_size_says_so_before_anything_is_tried(runs):
    trained = demokit.load_policy(runs / "gmps").trained
    unfinished = replace(trained, learner=replace(trained.learner, step_size=None))
    agent = type(demokit.load_policy(runs / "gmps"))(unfinished)
    assert agent.new_task(steps=1).episodes == 3
    with pytest.raises(DemokitError, match="not finished"):
        agent.new_task(steps=2)
