"""A door opened by keys in a terminal, in a way that no script knows, is how policies open it."""

import numpy as np
import pytest
import torch
from program import Program

from demokit.data import open_dataset
from demokit.envs import make_family
from demokit.envs.batch import SimBatch
from gmps.experience.actor import Seen
from gmps.runs.checkpoint import load
from recorders.scripted import make_scripted

pytestmark = [pytest.mark.realtime, pytest.mark.slow]

STARTS = 32
HIGH_M = 0.3  # the script's hand never rises above 0.24 m
RISES = (26, 24, 28, 26, 24, 27)
SWINGS = (14, 18, 16, 20, 16, 18)
TRAININGS = {
    "imitation": (),
    "gmps": (
        *("--pretrain-steps", 2000, "--iterations", 10, "--outer-steps", 60),
        *("--inner-lr", 0.01, "--pre-update-weight", 1),
    ),
}


def high_and_round(rise, swing):
    """Step -> keys: straight up to 0.36 m, out to the right on the way, back, down, and pull."""
    forward, down = rise, rise + 40
    return {
        swing: "a",  # the opposite key stops a motion
        forward: "cw",
        forward + 10: "a",
        forward + 10 + swing: "d",
        down: "sc",
        down + 18: "es",
    }


def opens_door_with_keys(hand, keys, number):
    """One episode in the terminal; whether it was kept, as the `number`-th, for it was solved."""
    start = len(hand.text)
    hand.wait_for(r"(recording|begins).* step \d+/")
    hand.type("fed")
    for step, typed in sorted(keys.items()):
        hand.wait_for(f"step ({'|'.join(map(str, range(step, 101)))})/", since=start)
        hand.type(typed)
    hand.wait_for(f"not solved: |kept {number}/", since=start)
    return f"kept {number}/" in hand.text[start:]


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """Three tasks, two episodes each, from keys in a terminal."""
    path = tmp_path_factory.mktemp("demos") / "hand.hdf5"
    hand = Program(
        *("record", "--env", "door", "--device", "terminal", "--view", "none", "--rate", 10),
        *("--task-set", "uniform", "--seed", 6, "--tasks", 3, "--num-episodes", 9),
        *("--countdown", 0.2, "--end-on-success", "--license", "MIT", "--out", path),
    )
    try:
        for number, way in enumerate(zip(RISES, SWINGS, strict=True), 1):
            while not opens_door_with_keys(hand, high_and_round(*way), number):
                hand.type("r")
        hand.type("qx")
        assert hand.end() == 0, hand.text
    finally:
        hand.close()
    return path


def ways(act):
    """The hand's way (100, STARTS, 3), and how far the door is open at the end."""
    sims = SimBatch(make_family("door"), STARTS)
    observation = sims.reset(np.full((STARTS, 1), 0.5), range(100, 100 + STARTS))
    way = []
    for _ in range(100):
        privileged = sims.privileged()
        way.append(privileged["hand_pos_w_m"])
        observation = sims.step(act(observation, privileged)).observation
    return np.stack(way), sims.privileged()["door_angle_rad"][:, 0]


def by_mean(learner):
    """What a learner does that has met no task yet."""
    actor = learner.exploiter(learner.begin(1), STARTS)
    none = torch.zeros(1, STARTS, 3)

    @torch.no_grad()
    def act(observation, _):
        here = torch.from_numpy(observation)[None]
        seen = Seen(0, here, none, none[..., 0], torch.ones(1, STARTS, dtype=torch.bool))
        dist, _ = actor(actor.memory, seen)
        return dist.sample(none)[0].numpy()

    return act


def apart(way, others):
    """Mean distance in metres from the points of a way (T, 3) to the nearest of others'."""
    gaps = np.linalg.norm(way[:, None] - np.concatenate(others), axis=-1)
    return gaps.min(axis=1).mean()


def surely_below(values):
    """Whether the mean is below 0: the upper end of its bootstrapped 95% interval is."""
    drawn = np.random.default_rng(0).choice(values, (2000, len(values)))
    return np.quantile(drawn.mean(axis=1), 0.975) < 0


@pytest.mark.parametrize("method", TRAININGS)
def test_a_policy_opens_doors_as_the_person_did(method, by_hand, tmp_path, invoke):
    with open_dataset(by_hand) as dataset:
        person = [episode.privileged["hand_pos_w_m"] for episode in dataset]
        assert [episode.success for episode in dataset] == [True] * len(RISES)
        assert "expert_action" in dataset[0].privileged  # of the script, all the same
    invoke(
        *("meta-train", "--demos", by_hand, "--output-dir", tmp_path, "--method", method),
        *("--rollouts-per-task", 4, "--tuning-tasks", 1, "--threads", 1, *TRAININGS[method]),
    )
    scripted, _ = ways(make_scripted("door").act)
    assert scripted[..., 2].max() < HIGH_M < min(way[:, 2].max() for way in person)
    found, angle = ways(by_mean(load(tmp_path)[0].learner))
    assert (angle > 0.1).mean() >= 0.9
    assert (found[..., 2].max(axis=0) > HIGH_M).mean() >= 0.9
    # Six demonstrations do not cover every start: from some the policy goes its own way.
    gaps = [(apart(w, person), apart(w, scripted.swapaxes(0, 1))) for w in found.swapaxes(0, 1)]
    assert surely_below([to_person - 0.5 * to_script for to_person, to_script in gaps])
