"""The loop of a user: one simulation of the family, and a trial that says what to do in it."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from demokit.envs.batch import make_sims
from gmps.beliefs import tensors_of
from gmps.method import method_names

METHODS = method_names()
TOLD = {"oracle"}


def held_out(agent):
    """A task that no training met."""
    return replace(agent.trained.problem.tasks[0], id="t/0", context=(0.3, -0.2))


def context_of(agent, task):
    return task.context if agent.method in TOLD else None


def drive(trial, agent, task, ends=lambda episode, t: False):
    """The loop of a user, in the family's simulation."""
    problem = agent.trained.problem
    sims = make_sims(problem.family, 1, reward=problem.reward, observation=problem.sees)
    while trial.gathering:
        episode, t = trial.episode, 0
        observation = sims.reset(np.array([task.context]), [trial.start_seed])
        over = False
        while not over:
            step = sims.step(trial.act(first(observation))[None])
            t += 1
            over = trial.record(
                step.reward[0],
                step.terminated[0],
                ends(episode, t),
                final_observation=first(step.observation),
            )
            observation = step.observation
    return trial.adapted()


def first(observation):
    """That of the first simulation."""
    if isinstance(observation, Mapping):
        return {name: rows[0] for name, rows in observation.items()}
    return observation[0]


def same(one, other):
    """Whether two beliefs are the same, bit for bit."""
    one, other = tensors_of(one), tensors_of(other)
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
