"""The recording loop: order, seeds, labels, quotas, and that resuming changes nothing."""

import numpy as np
import pytest

from demokit.data.layout import digest
from demokit.envs import make_family
from demokit.envs.batch import SimBatch, SimState
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.protocols import Decision
from recorders.loop import (
    TRIES_PER_EPISODE,
    Attempt,
    Schedule,
    attempt_seeds,
    record,
    saved_attempts,
    spread,
)
from recorders.noise import EpisodeNoise, NoisyExpert
from recorders.scripted import make_scripted

POINT = make_family("point")
TASKS = make_tasks(POINT, "uniform", "train", num_tasks=3)


def episodes_of(schedule, *, batch=4, noise=0.3, seed=5, source=None, family=POINT, tasks=TASKS):
    expert = make_scripted(family.name)
    make = source or (lambda seeds: NoisyExpert(expert, noise, EpisodeNoise(seeds)))
    sims = SimBatch(family, batch)
    return record(sims, make, tasks, schedule, seed=seed, recorder="scripted")


class Coin:
    """Solves a task or stands still, as the noise seed of the episode says."""

    name = "coin"

    def __init__(self, seeds):
        self._solves = np.array([seed % 3 == 0 for seed in seeds])[:, None]
        self._expert = make_scripted("point")

    def decide(self, observation, privileged):
        label = self._expert.act(observation, privileged)
        return Decision(label * self._solves, label, np.ones(len(label), bool))


def test_spread_is_even():
    assert spread(5, 3) == (2, 2, 1)
    assert spread(2, 3) == (1, 1, 0)


def test_tasks_take_turns():
    found = list(episodes_of(Schedule(spread(7, 3))))
    assert [e.task for e in found] == [TASKS[i % 3] for i in range(7)]
    assert [e.options["attempt"] for e in found] == [0, 0, 0, 1, 1, 1, 2]
    assert [e.seed for e in found] == [
        attempt_seeds(5, Attempt(i % 3, i // 3))[0] for i in range(7)
    ]


@pytest.mark.parametrize("name", ["point", "push"])
@pytest.mark.parametrize("batch", [1, 5, 8])
def test_the_batch_size_changes_nothing(name, batch):
    family = make_family(name)
    tasks = make_tasks(family, "uniform", "train", num_tasks=3)
    schedule = lambda: Schedule(spread(7, 3))  # noqa: E731
    whole = [digest(e) for e in episodes_of(schedule(), batch=7, family=family, tasks=tasks)]
    found = [digest(e) for e in episodes_of(schedule(), batch=batch, family=family, tasks=tasks)]
    assert found == whole


@pytest.mark.parametrize("cut", [1, 4, 6])
@pytest.mark.parametrize("only_success", [False, True])
def test_resuming_gives_what_an_uninterrupted_recording_gives(cut, only_success):
    def run(saved=(), batch=4):
        schedule = Schedule(spread(7, 3), only_success=only_success, saved=saved)
        return list(episodes_of(schedule, batch=batch, source=Coin))

    whole = run()
    assert len(whole) == 7
    saved = saved_attempts(((e.task.id, e.options) for e in whole[:cut]), TASKS)
    rest = run(saved, batch=3)
    assert [digest(e) for e in whole[:cut] + rest] == [digest(e) for e in whole]


def test_only_success_counts_what_is_kept():
    tried = []
    schedule = Schedule((3, 3, 3), only_success=True)
    found = list(
        record(
            SimBatch(POINT, 4),
            Coin,
            TASKS,
            schedule,
            seed=5,
            recorder="coin",
            on_attempt=tried.append,
        )
    )
    assert [sum(e.task == task for e in found) for task in TASKS] == [3, 3, 3]
    assert all(e.success for e in found)
    assert len(tried) > 9
    assert sum(t.kept for t in tried) == 9


def test_an_expert_that_never_succeeds_comes_to_an_end():
    class Still(Coin):
        def decide(self, observation, privileged):
            label = self._expert.act(observation, privileged)
            return Decision(0 * label, label, np.ones(len(label), bool))

    tried = []
    schedule = Schedule((1, 2, 0), only_success=True)
    sims = SimBatch(POINT, 4)
    kept = record(sims, Still, TASKS, schedule, seed=0, recorder="still", on_attempt=tried.append)
    assert list(kept) == []
    assert len(tried) == 3 * TRIES_PER_EPISODE


def test_what_an_episode_holds():
    episode = next(episodes_of(Schedule((1, 0, 0)), noise=0.5))
    steps = POINT.horizon
    assert len(episode) == steps
    assert episode.observations.shape == (steps + 1, 2)
    assert episode.privileged["expert_action"].shape == (steps + 1, 2)
    assert episode.privileged["context"].shape == (steps + 1, 2)
    assert (episode.privileged["context"] == TASKS[0].context).all()
    assert episode.truncations.tolist() == [False] * (steps - 1) + [True]
    np.testing.assert_array_equal(episode.rewards, episode.privileged["reward_dense"][1:])
    assert episode.success == episode.privileged["success"][-1]
    # The label is the expert's answer in the recorded state, without the executed noise.
    expert = make_scripted("point")
    np.testing.assert_array_equal(
        expert.act(episode.observations, episode.privileged), episode.privileged["expert_action"]
    )
    assert np.abs(episode.actions - episode.privileged["expert_action"][:-1]).max() > 0.1


def test_a_recorded_state_continues_bit_for_bit():
    episode = list(episodes_of(Schedule((2, 1, 1)), noise=0.5))[2]
    sims = SimBatch(POINT, 1)
    sims.reset(np.array([episode.task.context]), [episode.seed])
    np.testing.assert_array_equal(sims.privileged()["state"][0], episode.privileged["state"][0])
    start = 8
    sims.set_state(
        SimState(
            episode.privileged["state"][start][None],
            np.array([start]),
            np.array([episode.task.context]),
        )
    )
    for t in range(start, len(episode)):
        step = sims.step(episode.actions[t][None])
        np.testing.assert_array_equal(step.observation[0], episode.observations[t + 1])
        assert step.reward[0] == episode.rewards[t]


def test_without_noise_actions_are_labels():
    for episode in episodes_of(Schedule((1, 1, 1)), noise=0.0):
        np.testing.assert_array_equal(episode.actions, episode.privileged["expert_action"][:-1])


def test_noise_depends_on_the_seed_of_its_row_alone():
    whole, part = EpisodeNoise([3, 4, 5]), EpisodeNoise([5])
    for _ in range(3):
        rows, row = whole.standard_normal((3, 2)), part.standard_normal((1, 2))
        np.testing.assert_array_equal(rows[2:], row)
    with pytest.raises(DemokitError, match="3 episodes, not for 2"):
        whole.standard_normal((2, 2))


def test_episodes_of_another_recorder_are_not_continued():
    with pytest.raises(DemokitError, match="another recorder"):
        saved_attempts([(TASKS[0].id, {})], TASKS)
