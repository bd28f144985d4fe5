"""Episodes of training tasks, kept to learn from again: the newest ones, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from demokit.errors import DemokitError
from demokit.learning.checkpoint import check_state
from demokit.types import Array, Episode
from gmps.experience.rollouts import Rollouts

Reward: TypeAlias = Callable[[Episode], Array]
"""What the steps of a recorded episode are paid, (T,)."""
_NOTHING = torch.zeros(())


class Steps(NamedTuple):
    """B steps of each of M tasks.

    `observation` and `next_observation` (M, B, O), `action` (M, B, A), executed ones; `reward`
    (M, B), and `paid` (M, B), which is another where critics learn from another reward; `ended`
    (M, B) bool, whether the step ended its episode by itself: a time limit does not.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor
    paid: Tensor
    ended: Tensor


class Episodes(NamedTuple):
    """K episodes of each of M tasks, of up to T steps.

    `observation` (M, K, T + 1, O), `action` (M, K, T, A), `reward` and `paid` (M, K, T), see
    `Steps`; `length` (M, K) int64, the steps that count; `ended` (M, K) bool, whether the
    last of them ended the episode by itself.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    paid: Tensor
    length: Tensor
    ended: Tensor

    @classmethod
    def of(cls, rollouts: Rollouts, final: Tensor, paid: Tensor) -> Episodes:
        """Of roll-outs, the observations (M, K, O) after their last step, and what is `paid`."""
        assert isinstance(rollouts.observation, Tensor)
        return cls(
            torch.cat((rollouts.observation, final[:, :, None]), 2),
            rollouts.action.clamp(-1, 1),
            rollouts.reward,
            paid,
            rollouts.alive.sum(2),
            rollouts.terminated.any(2),
        )

    @classmethod
    def recorded(
        cls, episodes: Sequence[Episode], num_tasks: int, horizon: int, rewards: Sequence[Reward]
    ) -> Episodes:
        """Of recorded episodes of states, as many of each task; `rewards` are `reward` and `paid`.

        Steps beyond the horizon are left out.
        """
        lengths = [min(len(each), horizon) for each in episodes]

        def stacked(rows: Sequence[Array], length: int) -> Tensor:
            filled = np.zeros((len(rows), length, *rows[0].shape[1:]), np.float32)
            for room, own in zip(filled, rows, strict=True):
                room[: len(own)] = own[:length]
            return torch.from_numpy(filled).view(num_tasks, -1, *filled.shape[1:])

        whole = [len(each) <= horizon and bool(each.terminations[-1]) for each in episodes]
        reward, paid = (stacked([of(each) for each in episodes], horizon) for of in rewards)
        return cls(
            stacked([np.asarray(each.observations) for each in episodes], horizon + 1),
            stacked([each.actions for each in episodes], horizon),
            reward,
            paid,
            torch.tensor(lengths).view(num_tasks, -1),
            torch.tensor(whole).view(num_tasks, -1),
        )

    @classmethod
    def none(cls, tasks: int, episodes: int, horizon: int, observed: int, action: int) -> Episodes:
        """Room for episodes."""
        shape = tasks, episodes
        return cls(
            torch.zeros(*shape, horizon + 1, observed),
            torch.zeros(*shape, horizon, action),
            torch.zeros(*shape, horizon),
            torch.zeros(*shape, horizon),
            torch.zeros(*shape, dtype=torch.int64),
            torch.zeros(*shape, dtype=torch.bool),
        )

    def steps(self, tasks: Tensor, episode: Tensor, t: Tensor) -> Steps:
        """Steps t (M, B) of episodes (M, B) of tasks (M,)."""
        rows = tasks[:, None]
        last = self.length[rows, episode] == t + 1
        return Steps(
            self.observation[rows, episode, t],
            self.action[rows, episode, t],
            self.reward[rows, episode, t],
            self.observation[rows, episode, t + 1],
            self.paid[rows, episode, t],
            self.ended[rows, episode] & last,
        )


@dataclass(frozen=True, eq=False)
class Replay:
    """A ring of episodes for each of M tasks; what is added takes the place of the oldest.

    It is one store for two kinds of draws: transitions to learn from are drawn from all episodes of
    a task, contexts from the newest ones that were added as such. All changes are in place.

    Attributes:
        kept: room for E episodes of each task.
        is_context: (M, E) bool, which of them contexts are drawn from.
        count: (M,) int64, episodes added so far.
    """

    kept: Episodes
    is_context: Tensor
    count: Tensor

    @classmethod
    def empty(cls, tasks: int, episodes: int, horizon: int, observed: int, action: int) -> Replay:
        """Room for so many episodes of every task."""
        kept = Episodes.none(tasks, episodes, horizon, observed, action)
        flags = torch.zeros_like(kept.ended)
        return cls(kept, flags, torch.zeros(tasks, dtype=torch.int64))

    @property
    def num_bytes(self) -> int:
        """Memory that it takes, full or empty."""
        return sum(value.numel() * value.element_size() for value in self._all().values())

    def to(self, device: torch.device) -> Replay:
        """The same on a device."""
        moved = (value.to(device) for value in (self.is_context, self.count))
        return Replay(Episodes(*(value.to(device) for value in self.kept)), *moved)

    def forget_contexts(self, tasks: Tensor) -> None:
        """Draw contexts of tasks (m,) from nothing that was added before."""
        self.is_context[tasks] = False

    def add(self, tasks: Tensor, new: Episodes, *, as_context: bool) -> None:
        """Keep K episodes of each of tasks (m,), all different."""
        num, room = new.length.shape[1], self.kept.length.shape[1]
        steps = torch.arange(num, device=tasks.device)
        slots = (self.count[tasks][:, None] + steps) % room
        for kept, values in zip(self.kept, new, strict=True):
            kept[tasks[:, None], slots] = values
        self.is_context[tasks[:, None], slots] = as_context
        self.count[tasks] += num

    def transitions(self, tasks: Tensor, chances: Tensor) -> Steps:
        """B transitions of each of tasks (m,), by chances (m, B) float64 uniform in [0, 1)."""
        return self._drawn(tasks, self.kept.length[tasks], chances)

    def contexts(self, tasks: Tensor, chances: Tensor) -> Steps:
        """The same from the episodes that contexts are drawn from."""
        return self._drawn(tasks, self.kept.length[tasks] * self.is_context[tasks], chances)

    def tensors(self) -> dict[str, Tensor]:
        """All that is in it, by name, no copies; room that was never used is left out."""
        used = slice(min(int(self.count.max()), self.kept.length.shape[1]))
        return {n: v if n == "count" else v[:, used] for n, v in self._all().items()}

    def filled(self, tensors: Mapping[str, Tensor]) -> Replay:
        """With what `tensors` said, in the room of this one.

        Raises:
            DemokitError: it said no such thing.
        """
        rooms, found = self._all(), dict(tensors)
        used = found["is_context"].shape[1] if found.get("is_context", _NOTHING).ndim == 2 else 0
        fits = min(used, self.kept.length.shape[1])
        check_state(
            found,
            lambda: {n: v if n == "count" else v[:, :fits] for n, v in rooms.items()},
        )
        _require_sound(found, self.kept.reward.shape[2])
        found |= {n: _wide(v, rooms[n]) for n, v in found.items() if n != "count"}
        return Replay(
            Episodes(*(found[n] for n in Episodes._fields)), found["is_context"], found["count"]
        )

    def _all(self) -> dict[str, Tensor]:
        return {**self.kept._asdict(), "is_context": self.is_context, "count": self.count}

    def _drawn(self, tasks: Tensor, lengths: Tensor, chances: Tensor) -> Steps:
        """Steps, each as likely as any other in episodes of lengths (m, E)."""
        ends = lengths.cumsum(1)
        step = (chances * ends[:, -1:]).long()
        episode = torch.searchsorted(ends, step, right=True)
        t = step - (ends - lengths).gather(1, episode)
        return self.kept.steps(tasks, episode, t)


def _require_sound(found: Mapping[str, Tensor], horizon: int) -> None:
    """Raise DemokitError for episodes that nobody can draw from: they have no step, or too many."""
    length, wide = found["length"], found["is_context"].shape[1]
    used = torch.arange(wide, device=length.device) < found["count"][:, None]
    sound = (length >= used) & (length <= horizon * used) & (found["count"][:, None] > 0)
    if not bool(sound.all()) or not bool((found["is_context"] & used).any(1).all()):
        raise DemokitError("What the checkpoint keeps of episodes is damaged: train again.")


def _wide(values: Tensor, room: Tensor) -> Tensor:
    """Values (M, E', ...) with zeros behind, as wide as a room (M, E, ...)."""
    behind = (values.ndim - 2) * (0, 0)
    return pad(values, (*behind, 0, room.shape[1] - values.shape[1]))
