"""A script as users write it, for mypy --strict: every value that they get has a type."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from torch.utils.data import DataLoader

import demokit
from demokit.calls import Evaluation
from demokit.data import (
    ArraySpec,
    Dataset,
    DatasetMetadata,
    DatasetWriter,
    EpisodeRecord,
    Recorder,
    describe,
    from_arrays,
    open_dataset,
)
from demokit.data.windows import TaskBalancedSampler, Windows
from demokit.envs import from_gymnasium, make_family
from demokit.envs.family import Family
from demokit.envs.gym import Env
from demokit.envs.tasks import make_tasks
from demokit.errors import DemokitError
from demokit.protocols import Agent, Trial
from demokit.types import Episode, FloatArray, Task


def own_data(path: Path) -> Dataset:
    episode = {"observations": np.zeros((21, 4)), "actions": np.zeros((20, 2)), "task": "reach"}
    dataset = from_arrays(path, [episode] * 3, family="my-arm", action_low=-2, license="MIT")
    assert_type(dataset, Dataset)
    assert_type(dataset.metadata, DatasetMetadata)
    return dataset


def look(path: str) -> float:
    with open_dataset(path) as dataset:
        assert_type(dataset, Dataset)
        episode = dataset[0]
        assert_type(episode, Episode)
        assert_type(episode.task, Task)
        assert_type(episode.task.context, tuple[float, ...])
        records = [record for record in dataset.episodes if record.task.split == "train"]
        assert_type(records, list[EpisodeRecord])
        return episode.episode_return


def record(env: gymnasium.Env[Any, Any], path: Path) -> Family:
    family = from_gymnasium("mine", lambda: env, Box(-1, 1, (2,)), horizon=20)
    with Recorder(env, path, family="mine", privileged=lambda own: {"goal": own.goal}) as recorder:
        assert_type(recorder.saved, int)
        for task in make_tasks(family, "uniform", "train"):
            recorder.reset(seed=1, options={"task": task.context})
            _, _, terminated, _, _ = recorder.step(np.zeros(2))
            assert_type(terminated, bool)
    assert_type(Windows(open_dataset(path), 4).contexts, torch.Tensor | None)
    return family


def learn(path: str) -> torch.Tensor:
    windows = Windows(path, 10, stride=2)
    loader = DataLoader(windows, batch_size=4, sampler=TaskBalancedSampler(windows, seed=1))
    assert_type(windows[0], dict[str, torch.Tensor])
    return torch.stack([windows[index]["actions"].mean() for index in loader.sampler])


def adapt(run: Path) -> FloatArray:
    agent = demokit.load_policy(run)
    assert_type(agent, Agent)
    assert_type(agent.observation_shapes, Mapping[str, tuple[int, ...]])
    assert_type(agent.action_names, tuple[str, ...])
    observation = np.zeros(agent.observation_shapes[""])
    trial = agent.new_task(episodes=40, seed=1)
    assert_type(trial, Trial)
    while trial.gathering:
        action = trial.act(observation)
        assert_type(action, FloatArray)
        assert_type(trial.record(float(action[0]), terminated=False), bool)
    adapted = trial.adapted()
    assert_type(adapted, Agent)
    adapted.save("adapted.safetensors", overwrite=True)
    return adapted.act(observation)


def walk(folder: Path, env: Family) -> float:
    assert_type(demokit.record("push", folder / "push.hdf5", tasks=2), Dataset)
    assert_type(demokit.meta_train(folder / "push.hdf5", folder / "a", iterations=3), Agent)
    demokit.meta_train(env=env, method="maml", task_set="uniform", meta_batch=4)
    found = demokit.evaluate(folder / "a", folder / "b", episodes=20, rollouts=[5, 20])
    assert_type(found, Evaluation)
    return found.success["a"][20].mean


def simulate(name: str) -> tuple[Family, tuple[Task, ...]]:
    family = make_family(name)
    env = Env(name, split="validation")
    _, info = env.reset(seed=0)
    assert_type(info, dict[str, Any])
    return family, make_tasks(family, "uniform", "train", num_tasks=3)


def wrong(run: int) -> None:
    demokit.load_policy(run)  # type: ignore[arg-type]
    demokit.load_policy("run").new_task(epsiodes=3)  # type: ignore[call-arg]
    demokit.record("push", "push.hdf5", taks=3)  # type: ignore[call-arg]
    ArraySpec("wide", "float32", 0, 1)  # type: ignore[arg-type]
    try:
        raise DemokitError("no")
    except DemokitError as error:
        assert_type(str(error), str)


__all__ = [
    "DatasetWriter",
    "adapt",
    "describe",
    "learn",
    "look",
    "own_data",
    "record",
    "simulate",
    "walk",
    "wrong",
]
