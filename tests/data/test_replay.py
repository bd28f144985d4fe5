"""Replays are bit for bit; a deviation is named by its first step; videos say what they need."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from demokit.data import ArraySpec, DatasetWriter, open_dataset
from demokit.data.replay import Replayer, compare, frames, recorded_states
from demokit.data.validation import validate
from demokit.errors import DemokitError


@pytest.fixture(scope="module")
def replayer(recorded):
    return Replayer(open_dataset(recorded).metadata, num_sims=8)


@pytest.fixture(scope="module")
def episodes(recorded):
    return list(open_dataset(recorded))


def test_replays_are_exact(replayer, episodes):
    assert replayer.same_model
    for episode, again in zip(episodes, replayer.from_actions(episodes), strict=True):
        for replay in (replayer.from_states(episode), again):
            deviation = compare(episode, replay)
            assert (deviation.first_step, deviation.largest) == (None, 0.0)
            assert set(replay.arrays) >= {"observations", "rewards", "privileged/reward_sparse"}
    rows = replayer.from_states(episodes[0], [3, 20])
    np.testing.assert_array_equal(rows.states, episodes[0].privileged["state"][[3, 20]])


def test_the_first_divergent_step_and_the_tolerance(replayer, episodes):
    observations = episodes[0].observations.copy()
    observations[7, 1] += 0.25
    observations[9, 0] += 0.5
    changed = replace(episodes[0], observations=observations)
    replay = replayer.from_states(changed)
    found = compare(changed, replay)
    assert (found.first_step, found.array) == (7, "observations")
    assert found.largest == pytest.approx(0.5)
    assert compare(changed, replay, 0.3).first_step == 9
    assert compare(changed, replay, 0.6).first_step is None


def test_a_changed_action_diverges_after_its_step(replayer, episodes):
    actions = episodes[1].actions.copy()
    actions[5] = -actions[5]
    changed = replace(episodes[1], actions=actions)
    (replay,) = replayer.from_actions([changed])
    assert compare(changed, replay).first_step == 6


def test_images_do_not_wait_for_the_simulation(episodes, recorded, tmp_path, monkeypatch, invoke):
    """Batches of episodes were in memory whole, where one at a time is promised."""
    about = open_dataset(recorded).metadata
    image = ArraySpec((8, 8, 3), "uint8", 0, 255)
    path = tmp_path / "seen.hdf5"
    spaces = {"state": about.observation_space, "image": image}
    with DatasetWriter(path, replace(about, observation_space=spaces)) as writer:
        for episode in episodes:
            pictures = np.zeros((len(episode) + 1, 8, 8, 3), np.uint8)
            seen = {"state": episode.observations, "image": pictures}
            writer.add(replace(episode, observations=seen))
        writer.finish()
    held, simulate = [], Replayer.from_actions

    def watched(replayer, batch):
        held.extend(set(episode.named_observations()) for episode in batch)
        return simulate(replayer, batch)

    monkeypatch.setattr(Replayer, "from_actions", watched)
    assert validate(path, replay=True).ok
    assert "8 of 8 episodes replay" in invoke("replay", path, "--use-actions").stdout
    assert held == [{"state"}] * 16


def test_an_episode_without_states(replayer, episodes):
    bare = replace(episodes[0], privileged={})
    with pytest.raises(DemokitError, match="no simulator state"):
        replayer.from_states(bare)


def test_states_of_another_model(replayer, episodes):
    state = episodes[0].privileged["state"][:, :-1]
    with pytest.raises(DemokitError, match="State has shape"):
        replayer.from_states(replace(episodes[0], privileged={"state": state}))


def test_frames_and_video(replayer, episodes, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    from demokit.data.video import write_video

    with pytest.raises(DemokitError, match="Unknown camera"):
        next(frames(replayer, episodes[0], [recorded_states(episodes[0])], "none"))
    both = [recorded_states(episodes[0]), replayer.from_states(episodes[0])]
    try:
        pictures = list(frames(replayer, episodes[0], both, "scene"))
    except DemokitError as error:
        pytest.skip(str(error))
    assert len(pictures) == 21
    width = pictures[0].shape[1]
    np.testing.assert_array_equal(pictures[5][:, : width // 2], pictures[5][:, width // 2 :])
    assert write_video(tmp_path / "a.mp4", pictures, 10) == 21
    assert (tmp_path / "a.mp4").stat().st_size > 1000
    (tmp_path / "file").write_text("")
    with pytest.raises(DemokitError, match="Cannot write"):
        write_video(tmp_path / "file" / "a.mp4", pictures, 10)


def test_without_imageio(monkeypatch, tmp_path):
    from demokit.data.video import write_video

    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(DemokitError, match="pip install imageio-ffmpeg"):
        write_video(tmp_path / "a.mp4", [], 10)
