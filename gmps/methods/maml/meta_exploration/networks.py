"""Three networks that share a latent alone: who explores, who exploits, and what adapts it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from demokit.learning.distributions import Gaussian
from demokit.learning.networks import Params, init_mlp, mlp
from gmps.policies.gaussian import LATENT, GaussianPolicy
from gmps.policies.meta_params import section

EXPLORER, POLICY, MODEL, ORIGIN = "explorer.", "policy.", "model.", "latent"


class Shown(NamedTuple):
    """What adaptation is shown of M tasks, (M, K, T, ...): observations, actions and what they got.

    `observation` (M, K, T, O) as features, `action` (M, K, T, A); `target` (M, K, T) is what the
    inner step goes by, returns, rewards or advantages; `weight` (M, K, T) makes a mean over the
    steps of a task a sum.
    """

    observation: Tensor
    action: Tensor
    target: Tensor
    weight: Tensor


@dataclass(frozen=True, eq=False)
class Networks:
    """The exploration policy mu(s), the exploitation policy pi(s, z), and M(s, a, z).

    Attributes:
        explorer: mu; None where pi explores, under the latent before adaptation.
        policy: pi; the latent stands for its bias transformation.
        predicts: whether the inner step is of M; else of pi's policy gradient.
    """

    explorer: GaussianPolicy | None
    policy: GaussianPolicy
    predicts: bool

    def init(self, rng: torch.Generator | None) -> Params:
        """Fresh parameters, by name: "explorer.", "policy.", "model." and "latent" (Z,)."""
        parts = {part: policy.init(rng) for part, policy in self.policies()}
        latent = parts[POLICY].pop(LATENT)
        bound = (6 / (1 + len(latent))) ** 0.5  # Xavier's, as a layer of one unit
        latent.uniform_(-bound, bound, generator=rng)
        if self.predicts:
            parts[MODEL] = init_mlp(rng, self._model_widths)
        named = {f"{part}{n}": value for part, own in parts.items() for n, value in own.items()}
        return {**named, ORIGIN: latent}

    @property
    def _model_widths(self) -> tuple[int, ...]:
        seen = len(self.policy.feature_mean) + self.policy.action_width
        hidden = self.policy.hidden_layers * (self.policy.hidden_width,)
        return (seen + self.policy.bias_transform_width, *hidden, 1)

    def policies(self) -> Iterator[tuple[str, GaussianPolicy]]:
        """Pi and, where it has one of its own, mu, with the prefix of its parameters."""
        yield POLICY, self.policy
        if self.explorer is not None:
            yield EXPLORER, self.explorer

    def exploring(self, params: Params, observation: Tensor) -> Gaussian:
        """Mu, for features (M, ..., O)."""
        if self.explorer is None:
            latents = params[ORIGIN].expand(len(observation), -1)
            return self.exploiting(params, latents, observation)
        return self.explorer.dist(section(params, EXPLORER), observation)

    def exploiting(self, params: Params, latents: Tensor, observation: Tensor) -> Gaussian:
        """Pi of M tasks, each under its latent (M, Z), for features (M, ..., O)."""
        return self.policy.dist_under(section(params, POLICY), latents, observation)

    def predicted(
        self, params: Params, latents: Tensor, observation: Tensor, action: Tensor
    ) -> Tensor:
        """M of M tasks (M, ...), each under its latent (M, Z)."""
        layers = section(params, MODEL)
        seen = self.policy.standardised(observation)
        x = torch.cat((seen, self.policy.action_scale * action), -1)
        first, bias = layers["0.weight"], layers["0.bias"]
        later = [
            (layers[f"{i}.weight"], layers[f"{i}.bias"])
            for i in range(1, self.policy.hidden_layers + 1)
        ]
        width = x.shape[-1]

        def under(latent: Tensor, own: Tensor) -> Tensor:
            every = ((first[:width], bias + latent @ first[width:]), *later)
            return mlp(every, own, self.policy.activation).squeeze(-1)

        found: Tensor = torch.func.vmap(under)(latents, x)
        return found

    def losses(self, params: Params, latents: Tensor, shown: Shown) -> Tensor:
        """What the latents (M, Z) descend on, (M, K, T), one number for each step.

        M's squared error, or, without M, the negative log-likelihood times the advantage: by what
        the other policy did, so that it is off-policy (the report's first ablation).
        """
        seen, action, target, _ = shown
        if self.predicts:
            return (self.predicted(params, latents, seen, action) - target).square()
        return -self.exploiting(params, latents, seen).log_prob(action) * target

    def adapted(self, params: Params, alpha: float, shown: Shown) -> Tensor:
        r"""$z' = z - \alpha \nabla_z mean_t l_t(z)$ of M tasks, (M, Z).

        It is differentiable in all parameters, through the inner gradient as well (of the report's
        Algorithm 1, line 6).
        """

        def mean(latents: Tensor) -> Tensor:
            return (shown.weight * self.losses(params, latents, shown)).sum()

        latents = params[ORIGIN].expand(len(shown.target), -1)
        moved: Tensor = latents - alpha * torch.func.grad(mean)(latents)
        return moved

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        explorer = self.explorer and self.explorer.to(device)
        return replace(self, explorer=explorer, policy=self.policy.to(device))


def groups(names: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The names of parameters that learn together, in order: pi and M, the latent, mu."""
    ordered = sorted(names)
    mu = [name for name in ordered if name.startswith(EXPLORER)]
    rest = [name for name in ordered if name not in mu and name != ORIGIN]
    found = {POLICY: rest, ORIGIN: [ORIGIN], EXPLORER: mu}
    return {name: own for name, own in found.items() if own}
