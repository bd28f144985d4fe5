"""The advantage A_i of the inner loop: a value baseline refitted per task, then GAE; and of trials.

Source: the published code uses the linear feature baseline of Duan et al. (2016), refitted for
every task on the same roll-outs it is used on, GAE, and normalisation per task.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gmps.steps.losses import discounted_returns

_RIDGE = 1e-5
_RIDGE_OF_UNITS = 1e-9


@dataclass(frozen=True, eq=False)
class Advantage:
    """Advantage estimator of one task; `torch.func.vmap` batches it over tasks.

    Attributes:
        discount, gae_lambda: of generalised advantage estimation (Schulman et al., 2016).
        baseline: "linear" (observation, its square, time, time^2, time^3, 1), "radial" (the
            same and radial basis functions around `centers`) or "zero".
        centers: (R, D), where radial features sit in the space of the selected observations.
        radial_columns: the D observation columns that hold the moving object's position.
        radial_width: standard deviation of a radial feature, in the columns' unit.
    """

    discount: float
    gae_lambda: float
    baseline: str = "linear"
    centers: Tensor | None = None
    radial_columns: slice | None = None
    radial_width: float = 1.0

    def __call__(self, observation: Tensor, reward: Tensor, alive: Tensor) -> Tensor:
        """Normalised advantages (K, T) of one task's roll-outs, zero after an episode's end.

        Roll-outs that were all paid alike, such as none where rewards are sparse, say nothing:
        all zeros, not the baseline's errors blown up to deviation 1.

        Args:
            observation: (K, T, O), standardised or not; the fit does not care.
            reward: (K, T), zero after the end.
            alive: (K, T) bool, the steps until the end; no other step has any influence.
        """
        reward = reward.double()
        value = self._values(observation.double(), reward, alive)
        next_value = torch.nn.functional.pad(value[:, 1:], (0, 1))
        delta = reward + self.discount * next_value - value
        advantage = discounted_returns(delta, self.discount * self.gae_lambda)
        counts = alive * ~paid_alike(reward)
        centred = counts * (advantage - advantage.sum() / alive.sum())
        scale = (centred.square().sum() / alive.sum()).sqrt() + 1e-8
        normalised: Tensor = centred / scale
        return normalised.to(observation.dtype)

    def to(self, device: torch.device) -> Advantage:
        """The same on a device."""
        return self if self.centers is None else replace(self, centers=self.centers.to(device))

    def _values(self, observation: Tensor, reward: Tensor, alive: Tensor) -> Tensor:
        """Ridge regression of the returns on the features, evaluated where it was fitted."""
        if self.baseline == "zero":
            return torch.zeros_like(reward)
        features = (self._features(observation) * alive[..., None]).flatten(0, 1)
        target = discounted_returns(reward, self.discount).flatten()
        factor, unit = _factored(features.T @ features)
        weights = torch.cholesky_solve(features.T @ target[:, None] / unit, factor) / unit
        return (features @ weights).view_as(reward)

    def _features(self, observation: Tensor) -> Tensor:
        """Features (K, T, F) of observations (K, T, O)."""
        episodes, horizon, _ = observation.shape
        time = torch.arange(horizon, dtype=observation.dtype, device=observation.device) / 100
        powers = torch.stack((time, time**2, time**3, torch.ones_like(time)), -1)
        parts = [observation, observation.square(), powers.expand(episodes, -1, -1)]
        if self.baseline == "radial":
            parts.append(self._radial(observation))
        return torch.cat(parts, -1)

    def _radial(self, observation: Tensor) -> Tensor:
        assert self.centers is not None
        assert self.radial_columns is not None
        offset = observation[..., None, self.radial_columns] - self.centers
        return torch.exp(-0.5 * offset.square().sum(-1) / self.radial_width**2)


def _factored(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The Cholesky factor of a Gram matrix (F, F) and a ridge, and units (F, 1) of its features.

    Units are 1, but where float64 takes the sum for no positive definite matrix: features that
    depend on each other and are large. There they are the features' norms, and the ridge is theirs.
    """
    # Not linalg.solve: batched, with several threads, it is silently wrong from 150 features on
    # (pytorch/pytorch#142815). What is NaN stays NaN.
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    plain, failed = torch.linalg.cholesky_ex(gram + _RIDGE * identity)
    norm = gram.diagonal()[:, None].sqrt()
    unit = torch.where((failed != 0) & (norm != 0), norm, 1)
    scaled, _ = torch.linalg.cholesky_ex(gram / (unit * unit.T) + _RIDGE_OF_UNITS * identity)
    return torch.where(failed != 0, scaled, plain), unit


def trial_advantages(
    reward: Tensor,
    value: Tensor,
    alive: Tensor,
    ended: Tensor,
    *,
    discount: float,
    gae_lambda: float,
) -> Tensor:
    """GAE over whole trials (B, L), across the ends of their episodes; zero where not `alive`.

    Source: Schulman et al., 2016, Eq. 16; RL2 (Duan et al., 2016) maximises what a trial pays, so
    that an episode's end cuts nothing. Where the last episode was not `ended` (B,) it was the
    horizon that cut the trial: its last step was as good as it was expected to be, for nobody saw
    what came of it (VariBAD's "proper time limits"). Values and rewards are in the same unit.
    """
    follows = torch.nn.functional.pad(alive[:, 1:], (0, 1))
    next_value = torch.nn.functional.pad(value[:, 1:], (0, 1)) * follows
    known = alive & (follows | ended[:, None])
    delta = known * (reward + discount * next_value - value)
    return discounted_returns(delta, discount * gae_lambda)


def paid_alike(reward: Tensor) -> Tensor:
    """Whether all roll-outs (..., K, T) of a task were paid alike: nothing to adapt to.

    A single one has no other to be like: it says nothing where it was never paid.
    """
    like = reward[..., :1, :] if reward.shape[-2] > 1 else torch.zeros_like(reward)
    return (reward == like).flatten(-2).all(-1)


def spread_centers(points: Tensor, num: int) -> tuple[Tensor, float]:
    """Pick `num` well-spread rows of points (P, D), and the width that makes them overlap.

    Farthest-point sampling from the point nearest to the mean; the width is the mean distance
    from a centre to its nearest neighbour.
    """
    points = points.double()
    first = (points - points.mean(0)).norm(dim=1).argmin()
    centers = [points[first]]
    distance = (points - centers[0]).norm(dim=1)
    for _ in range(num - 1):
        centers.append(points[distance.argmax()])
        distance = torch.minimum(distance, (points - centers[-1]).norm(dim=1))
    stacked = torch.stack(centers)
    gaps = torch.cdist(stacked, stacked).fill_diagonal_(torch.inf).min(1).values
    return stacked, max(float(gaps.mean()), 1e-6)
