"""Expert queries: the schedule, who acts, the labels, the dataset they leave, and resuming."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from short_run import DEMOS, NUM_TASKS, SHORT, cut, learner_of, options_of, trained_in

from demokit.data import open_dataset
from demokit.envs.batch import SimBatch
from demokit.errors import DemokitError
from demokit.experts import load_expert
from demokit.learning.checkpoint import load_checkpoint
from gmps.experience.demos import load_demos
from gmps.methods.gmps.dagger import AdaptedPolicies, expert_share, is_round
from gmps.policies.gaussian import GaussianActor, replicate
from gmps.progress import ITERATIONS

EPISODES = 3


def config(**changes):
    asked = {"dagger": True, "dagger_every": 1, "dagger_episodes": EPISODES}
    return options_of(**{**asked, **changes})


@pytest.fixture
def demos(point_demos):
    return load_demos(point_demos, DEMOS)


def test_rounds_come_every_so_many_iterations_but_not_first():
    assert [i for i in range(7) if is_round(i, 2)] == [2, 4, 6]


def test_the_experts_share_decays():
    assert [expert_share(r, 0.5) for r in (1, 2, 3)] == [0.5, 0.25, 0.125]
    assert expert_share(1, 0.0) == 0.0


def test_the_adapted_policies_act_and_the_expert_labels(demos):
    learner, _ = learner_of(demos)
    expert = load_expert("scripted", "point")
    phi = {n: v.clone() for n, v in replicate(learner.meta.theta, NUM_TASKS).items()}
    phi["2.bias"][1] += 5.0
    sims = SimBatch(demos.family, NUM_TASKS * 2)
    contexts = np.array([task.context for task in demos.tasks]).repeat(2, axis=0)
    observation = sims.reset(contexts, range(NUM_TASKS * 2))

    def decide(share):
        rngs = np.random.default_rng(0).spawn(NUM_TASKS)
        actor = GaussianActor(learner.policy, phi)
        shape, device = (NUM_TASKS, 2), torch.device("cpu")
        source = AdaptedPolicies(actor, shape, expert, share, rngs, device)
        return source.decide(observation, sims.privileged())

    own, mixed, third = (decide(np.array(share)) for share in ([0, 0, 0], [1, 1, 1], [0, 0, 1]))
    np.testing.assert_array_equal(own.label, expert.act(observation, sims.privileged()))
    assert not own.by_expert.any()
    assert (own.action[2:4] > 3).all()  # the second task's own parameters
    assert (np.abs(own.action[[0, 1, 4, 5]]) < 3).all()
    assert mixed.by_expert.all()
    np.testing.assert_array_equal(mixed.action, mixed.label)
    np.testing.assert_array_equal(third.by_expert, [False] * 4 + [True] * 2)


def test_rounds_leave_a_dataset_that_says_who_did_what(demos, tmp_path):
    found = trained_in(tmp_path / "run", demos, options=config(dagger_mixing=0.5))
    expert = load_expert("scripted", "point")
    with open_dataset(tmp_path / "run" / "aggregated.hdf5") as dataset:
        episodes = list(dataset)
    assert len(episodes) == 3 * NUM_TASKS * EPISODES
    assert [e.options["round"] for e in episodes[:: NUM_TASKS * EPISODES]] == [1, 2, 3]
    for episode in episodes[:EPISODES]:
        assert episode.task == demos.tasks[0]
        labels = expert.act(episode.observations, episode.privileged)
        np.testing.assert_array_equal(episode.privileged["expert_action"], labels)
        by_expert = episode.privileged["by_expert"][:-1]
        np.testing.assert_array_equal(episode.actions[by_expert], labels[:-1][by_expert])
        assert 0 < by_expert.mean() < 1
    # Queried roll-outs count like all others.
    without = trained_in(tmp_path / "plain", demos, options=options_of())
    assert found.spent.meta_training - without.spent.meta_training == len(episodes) * 20
    assert found.spent.experts == {}  # a script was not trained


def test_aggregated_roll_outs_have_the_experts_labels_whatever_is_demonstrated(
    point_demos, tmp_path
):
    executed = load_demos(point_demos, DEMOS, labels="executed")
    trained_in(tmp_path / "run", executed, options=config(iterations=2, labels="executed"))
    with open_dataset(tmp_path / "run" / "aggregated.hdf5") as dataset:
        added = executed.aggregated(list(dataset)).action[:, executed.num_recorded :]
        advice = [episode.privileged["expert_action"][:-1] for episode in dataset]
    np.testing.assert_array_equal(added.flatten(0, 1), advice)
    alone = load_demos(tmp_path / "run" / "aggregated.hdf5")
    assert torch.equal(alone.action, added)


def test_the_random_expert_is_not_asked(point_demos, tmp_path, invoke):
    args = ("meta-train", "--demos", point_demos, *SHORT, "--dagger", "--expert", "random")
    output = invoke(*args, "--output-dir", tmp_path / "run", exit_code=1).output
    assert "Error: The random expert knows nothing and labels nothing" in output


def test_aggregated_roll_outs_replay_bit_for_bit(demos, tmp_path):
    trained_in(tmp_path / "run", demos, options=config())
    with open_dataset(tmp_path / "run" / "aggregated.hdf5") as dataset:
        episode = dataset[len(dataset) - 1]
    sims = SimBatch(demos.family, 1)
    sims.reset(np.array([episode.task.context]), [episode.seed])
    for action in episode.actions:
        sims.step(action[None])
    np.testing.assert_array_equal(sims.get_state().physics[0], episode.privileged["state"][-1])


class KilledError(Exception):
    """Stands for whatever ends a process between two iterations."""


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_resuming_gives_the_same_bits_and_the_same_dataset(demos, tmp_path, stop_after):
    def die(stage, done, *_, **__):
        if (stage, done) == (ITERATIONS, stop_after + 2):
            raise KilledError

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    trained_in(whole, demos, options=config())
    with pytest.raises(KilledError):
        trained_in(cut, demos, options=config(), report=die)
    trained_in(cut, demos, options=config(), resume=True)
    expected, _ = load_checkpoint(whole / "checkpoint.safetensors")
    found, _ = load_checkpoint(cut / "checkpoint.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with open_dataset(whole / "aggregated.hdf5") as a, open_dataset(cut / "aggregated.hdf5") as b:
        assert [record.digest for record in a.episodes] == [r.digest for r in b.episodes]


@pytest.fixture
def sevens(point_demos):
    """The demonstrations again, as episodes, all of whose observations are 7."""
    with open_dataset(point_demos) as dataset:
        return [replace(e, observations=np.full_like(e.observations, 7)) for e in dataset]


def test_outer_steps_draw_from_what_was_aggregated(demos, sevens):
    grown = demos.aggregated(sevens)
    assert grown.num_steps == demos.num_steps + NUM_TASKS * DEMOS * 20
    rng = np.random.default_rng(0)
    drawn = [grown.sample(rng, DEMOS).observation for _ in range(20)]
    assert {tuple(d.shape) for d in drawn} == {(NUM_TASKS, DEMOS * 20, 2)}
    assert any((d == 7).all() for d in drawn)
    assert any((d == 7).any() and (d != 7).any() for d in drawn)


def test_the_share_of_aggregated_roll_outs_is_bounded(demos, sevens):
    grown = demos.aggregated(sevens).aggregated(sevens)
    rng = np.random.default_rng(0)
    drawn = [grown.sample(rng, DEMOS, 0.5).observation for _ in range(20)]
    assert {tuple(d.shape) for d in drawn} == {(NUM_TASKS, DEMOS * 20, 2)}
    assert max(float((d == 7).float().mean()) for d in drawn) == 0.5
    few = grown.sample(rng, 10, 0.5).observation  # the bound holds where all would be drawn, too
    assert float((few == 7).float().mean()) == 0.5
    assert not (grown.sample(rng, 10, 0.2).observation == 7).any()


def test_aggregated_episodes_may_be_shorter_or_longer(demos, sevens):
    grown = demos.aggregated([cut(episode, 12) for episode in sevens])
    assert grown.observation.shape == (NUM_TASKS, 2 * DEMOS, 20, 2)
    assert grown.alive.sum(2).tolist() == [[20] * DEMOS + [12] * DEMOS] * NUM_TASKS
    assert (grown.observation[:, DEMOS:, :12] == 7).all()
    again = grown.aggregated([cut(episode, 3) for episode in sevens])
    assert again.num_steps == demos.num_steps + NUM_TASKS * DEMOS * (12 + 3)


def test_unknown_expert_is_one_sentence(point_demos, tmp_path, invoke):
    result = invoke(
        *("meta-train", "--demos", point_demos, "--demos-per-task", DEMOS, "--dagger"),
        *("--expert", "scriptd", "--output-dir", tmp_path / "run"),
        exit_code=1,
    )
    assert "did you mean 'scripted'" in result.output


def test_a_lost_dataset_is_not_resumed_without(point_demos, tmp_path, invoke):
    folder = tmp_path / "run"
    asked = ("meta-train", "--demos", point_demos, "--output-dir", folder, *SHORT, "--dagger")
    asked = (*asked, "--dagger-every", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gmps.loop._settled", killed)
        invoke(*asked, exit_code=1)
    (folder / "aggregated.hdf5").unlink()
    assert "bring the file back" in invoke(*asked, "--resume", exit_code=1).output


def killed(*_):
    raise DemokitError("killed")
