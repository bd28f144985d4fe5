"""Training an expert: a run folder that survives anything, and the best expert found so far."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from demokit.collect import collect
from demokit.envs.batch import SimBatch, make_sims
from demokit.envs.family import Family
from demokit.errors import DemokitError
from demokit.learning.checkpoint import explain_content
from demokit.learning.device import find_device
from demokit.learning.expert import EXPERT_FILE, TrainedExpert
from demokit.learning.folder import TrainingFolder
from demokit.random import stream, stream_seed
from demokit.types import Task
from recorders.noise import NoisyExpert
from recorders.sac.agent import ExpertPolicy, ExpertSAC
from recorders.sac.config import SacConfig
from recorders.sac.folder import FILES, MAY_CHANGE
from recorders.sac.replay import TorchReplay
from recorders.sac.vec_env import TaskVecEnv

MAX_THREADS = 4  # more do not help: the products are small
BF16_CPUS = ("avx512_bf16", "amx_bf16", "bf16")
_FAR_FUTURE = 2**62


@dataclass(frozen=True)
class Evaluation:
    """An expert on its tasks, acting by its mean: (J,) mean return and success rate by task."""

    returns: tuple[float, ...]
    success: tuple[float, ...]

    @property
    def mean_return(self) -> float:
        """Over all tasks."""
        return float(np.mean(self.returns))

    @property
    def success_rate(self) -> float:
        """Over all tasks."""
        return float(np.mean(self.success))

    def __str__(self) -> str:
        return f"return {self.mean_return:.1f}, success {self.success_rate:.0%}"


class Evaluator:
    """Runs an expert on every task, always from the same starts.

    Args:
        family: the task family.
        tasks: J tasks.
        episodes: per task.
    """

    def __init__(self, family: Family, tasks: Sequence[Task], episodes: int) -> None:
        self._tasks = [task for task in tasks for _ in range(episodes)]
        self._sims: SimBatch = make_sims(family, len(self._tasks), reward="dense")
        self._shape = len(tasks), episodes

    def close(self) -> None:
        """Close the simulations."""
        self._sims.close()

    def __call__(self, expert: TrainedExpert) -> Evaluation:
        """Mean return and success rate by task."""
        num = len(self._tasks)
        source = NoisyExpert(expert, 0.0, stream(0, "no noise"))
        nothing: list[dict[str, object]] = [{}] * num
        episodes = collect(
            self._sims, source, self._tasks, range(num), recorder="sac", options=nothing
        )
        returns = np.reshape([episode.episode_return for episode in episodes], self._shape)
        success = np.reshape([episode.success for episode in episodes], self._shape)
        return Evaluation(tuple(returns.mean(1).tolist()), tuple(success.mean(1).tolist()))


class Training:
    """One training of one contextual expert, in a folder.

    Args:
        folder: where; created when missing.
        family, tasks, task_set: what it learns.
        config: its configuration, kept in config.json.
        resume: continue from the folder's checkpoint.
        overwrite: replace what is in the folder.

    Raises:
        DemokitError: the folder holds a training and neither `resume` nor `overwrite` is given,
            or one of another configuration, or another process trains there; there is no such
            device.
    """

    def __init__(
        self,
        folder: Path,
        family: Family,
        tasks: Sequence[Task],
        task_set: str,
        config: SacConfig,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        find_device(config.device)  # before anything is written
        self.folder, self.family, self.tasks, self.config = folder, family, tuple(tasks), config
        self._task_set = task_set
        self._kept = TrainingFolder(
            folder,
            {
                "family": family.name,
                "task_set": task_set,
                "tasks": [task.id for task in tasks],
                "config": asdict(config),
            },
            defaults=asdict(SacConfig()),
            free=MAY_CHANGE,
            key="env_steps",
            forget=FILES,
            resume=resume,
            overwrite=overwrite,
        )
        kept = self._kept.load()
        with explain_content(self._kept.checkpoint):
            begun = int(kept[1]["env_steps"]) if kept else 0
        # stable-baselines3 draws from torch's own generator, which goes on where it is resumed.
        torch.manual_seed(stream_seed(config.seed, "networks and updates", begun))
        set_threads(config)
        rng = stream(config.seed, "tasks and starts", begun)
        self._env = TaskVecEnv(family, tasks, config.num_envs, rng)
        self.agent = make_agent(self._env, config)
        self._evaluate = Evaluator(family, tasks, config.eval_episodes)
        self._best, self._spent_s = -np.inf, 0.0
        if kept:
            with explain_content(self._kept.checkpoint):
                self._restore(*kept)

    def run(self, report: Callable[[int, Evaluation | None], None]) -> None:
        """Train to the end; expert.safetensors holds the best expert found.

        Args:
            report: told of the environment steps so far and, after one, of the evaluation.
        """
        missing = self.config.total_steps - self.agent.num_timesteps
        if missing > 0:
            self.agent.learn(
                missing,
                _Bookkeeper(self, report),
                log_interval=_FAR_FUTURE,
                reset_num_timesteps=not self._kept.resumed,
            )

    def measure(self, spent_s: float) -> Evaluation:
        """Evaluate, log, keep the best expert, and write the checkpoint.

        Args:
            spent_s: seconds that this process has trained.
        """
        total_s = self._spent_s + spent_s
        expert = self._expert(total_s)
        found = self._evaluate(expert)
        if found.mean_return > self._best:
            self._best = found.mean_return
            ids = [task.id for task in self.tasks]
            scores = {
                "returns": dict(zip(ids, found.returns, strict=True)),
                "success": dict(zip(ids, found.success, strict=True)),
            }
            scored = replace(expert, header={**expert.header, **scores})
            with self._kept.writing():
                scored.save(self.folder / EXPERT_FILE)
        self._kept.log(self.agent.num_timesteps, self._scalars(found, total_s))
        self._save(total_s)
        return found

    def close(self) -> None:
        """Leave the folder to others, and close the simulations."""
        self._kept.close()
        self._evaluate.close()
        self._env.close()

    def _expert(self, spent_s: float) -> TrainedExpert:
        header = {
            "algorithm": "sac",
            "task_set": self._task_set,
            "tasks": [asdict(task) for task in self.tasks],
            "reward": "dense",
            "model_hash": self.family.model_hash,
            "config": asdict(self.config),
            "env_steps": self.agent.num_timesteps,
            "updates": self.agent._n_updates,
            "wall_clock_s": round(spent_s, 1),
        }
        return replace(policy_mean(self.agent, self.family), header=header)

    def _scalars(self, found: Evaluation, spent_s: float) -> dict[str, float]:
        return {
            "updates": float(self.agent._n_updates),
            "wall_clock_s": round(spent_s, 1),
            "return": found.mean_return,
            "worst_task_return": min(found.returns),
            "success": found.success_rate,
            "temperature": float(self.agent.state.alpha),
        }

    def _save(self, spent_s: float) -> None:
        agent, norm = self.agent, self.agent.replay_buffer.norm
        tensors = {**agent.state.named(), "norm.mean": norm.mean, "norm.var": norm.var}
        header = {
            "kind": "sac-training",
            "env_steps": agent.num_timesteps,
            "updates": agent._n_updates,
            "norm_count": norm.count,
            "best": self._best,
            "wall_clock_s": spent_s,
        }
        self._kept.save(tensors, header)

    def _restore(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Networks, Adam's moments, statistics and counters; transitions are gathered anew."""
        agent, norm = self.agent, self.agent.replay_buffer.norm
        kept = {**agent.state.named(), "norm.mean": norm.mean, "norm.var": norm.var}
        if _shapes(tensors) != _shapes(kept):
            raise DemokitError(
                f"{self._kept.checkpoint} was written by another version of demokit: start again "
                "with --overwrite."
            )
        for name, tensor in kept.items():
            tensor.copy_(tensors[name])
        norm.count = float(header["norm_count"])
        agent.num_timesteps = int(header["env_steps"])
        agent._n_updates = int(header["updates"])
        agent.explores_from = 0
        agent.learning_starts = agent.num_timesteps + self.config.warmup_steps
        self._best, self._spent_s = float(header["best"]), float(header["wall_clock_s"])
        self._kept.drop_from(agent.num_timesteps + 1)


class _Bookkeeper(BaseCallback):
    """Evaluates and saves every so many steps, and at the end."""

    def __init__(
        self, training: Training, report: Callable[[int, Evaluation | None], None]
    ) -> None:
        super().__init__()
        self._training, self._report = training, report
        self._begun = time.monotonic()

    def _on_training_start(self) -> None:
        self._measured_at = self.num_timesteps

    def _on_step(self) -> bool:
        every = self._training.config.eval_every
        found = None
        if self.num_timesteps // every > self._measured_at // every:
            found = self._measure()
        self._report(self.num_timesteps, found)
        return True

    def _on_training_end(self) -> None:
        if self.num_timesteps > self._measured_at:
            self._report(self.num_timesteps, self._measure())

    def _measure(self) -> Evaluation:
        self._measured_at = self.num_timesteps
        return self._training.measure(time.monotonic() - self._begun)


def make_agent(env: TaskVecEnv, config: SacConfig) -> ExpertSAC:
    """A fresh agent of stable-baselines3."""
    agent = ExpertSAC(
        ExpertPolicy,
        env,
        learning_rate=config.learning_rate,
        buffer_size=config.buffer_size,
        learning_starts=config.warmup_steps,
        batch_size=config.batch_size,
        tau=config.tau,
        gamma=config.discount,
        train_freq=1,
        gradient_steps=config.updates,
        replay_buffer_class=TorchReplay,
        replay_buffer_kwargs={
            "n_steps": config.n_steps,
            "gamma": config.discount,
            "reward_scale": config.reward_scale,
        },
        ent_coef=f"auto_{config.initial_temperature}",
        target_entropy=config.entropy_per_action * env.action_space.shape[0],  # type: ignore[index]
        policy_kwargs={"net_arch": [config.hidden_width] * 2},
        device=find_device(config.device),
    )
    agent.inputs, agent.explores_from = env.inputs, config.warmup_steps
    agent.rng = stream(config.seed, "uniform actions")
    bf16 = config.precision == "bf16" and has_bf16(config.device)
    agent.prepare(bf16=bf16, compiled=config.compile)
    return agent


def policy_mean(agent: ExpertSAC, family: Family) -> TrainedExpert:
    """What an agent over `TaskVecEnv` has learned, acting by its mean, in float64."""
    modules = [*agent.actor.latent_pi, agent.actor.mu]
    layers = tuple(
        (each.weight.detach().T.cpu().double(), each.bias.detach().cpu().double())
        for each in modules
        if isinstance(each, torch.nn.Linear)
    )
    norm = agent.replay_buffer.norm
    return TrainedExpert(family.name, agent.inputs, norm.mean.double(), norm.scale.double(), layers)


def set_threads(config: SacConfig) -> None:
    """Threads of torch, for the whole process, see `SacConfig.threads`."""
    spare = max(1, min((os.cpu_count() or 1) - 1, MAX_THREADS))
    torch.set_num_threads(config.threads or spare)


def has_bf16(device: str) -> bool:
    """Whether a device multiplies bfloat16 matrices itself, and not in an emulation."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Versions of torch that cannot say count as no.
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(found.get(name) for name in BF16_CPUS)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
