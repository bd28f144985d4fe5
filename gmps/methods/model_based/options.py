"""The options of MAML with a model; where defaults leave the published code's, help says so."""

from __future__ import annotations

from dataclasses import dataclass

from demokit.errors import DemokitError
from demokit.options import SIMULATION, option
from gmps.methods.model_based.model import ADAPTATIONS, GRADIENT
from gmps.options import PolicyOptions, RunOptions
from gmps.steps.planning import Search

_DESCENDING, _SHOOTING = f"adaptation={GRADIENT}", "rounds=1"


@dataclass(frozen=True, kw_only=True)
class ModelBasedOptions(PolicyOptions, RunOptions):
    """Of a model that adapts to the last transitions, and of planning in it."""

    iterations: int = option(
        20,
        "Iterations: sets of roll-outs, the first of random actions, and learning; published: 50.",
        length=True,
    )
    rollouts_per_task: int = option(
        1, "K, episodes of a new task from one look to the next.", at_most=100
    )
    eval_every: int = option(
        10,
        "Adapt to the monitor tasks every so many iterations, for the learning curve.",
        needs=SIMULATION,
    )
    meta_batch: int = option(
        0, "Training tasks drawn for each iteration; 0: all of them.", zero=True
    )
    hidden_width: int = option(64, "Units in both hidden layers; published: 512 in three.")
    adaptation: str = option(
        GRADIENT,
        "gradient: steps on the error of the last transitions (GrBAL); memory: what a GRU makes of "
        "them (ReBAL); none: the model stays as it is.",
        ADAPTATIONS,
    )
    nominal: bool = option(
        False,
        "Learn from roll-outs with the family's nominal dynamics alone, the same in all tasks.",
    )
    known_reward: bool = option(
        False,
        "Plan by the family's own reward of the states foreseen, where it follows from what is "
        "seen, in place of a predicted one.",
        tells="the reward function",
    )
    window: int = option(16, "Last transitions that the model adapts to.", at_most=10_000)
    inner_lr: float = option(1e-2, "gradient: step size; published: 1e-3.", needs=_DESCENDING)
    inner_steps: int = option(1, "gradient: steps.", at_most=100, needs=_DESCENDING)
    learn_inner_lr: bool = option(
        True,
        "gradient: learn a step size for every parameter, from --inner-lr on.",
        needs=_DESCENDING,
    )
    steps: int = option(
        500,
        "Gradient steps on the model in an iteration; published: up to 100 passes over all data, "
        "until it is no better on data left out.",
        length=True,
    )
    windows: int = option(32, "Windows of a gradient step; published: 10.")
    outer_lr: float = option(1e-3, "Step size of Adam; published, with a memory: 1e-2.")
    max_grad_norm: float = option(10.0, "The gradient is clipped to this norm.")
    candidates: int = option(500, "Sequences of actions that are tried in a round of planning.")
    horizon: int = option(10, "Steps that are planned ahead.")
    rounds: int = option(
        1, "Rounds of planning: 1 is random shooting, more the cross-entropy method."
    )
    elites: int = option(
        50, "Best sequences that the next round is drawn around.", needs=f"!{_SHOOTING}"
    )

    def __post_init__(self) -> None:
        """See `RunOptions`."""
        super().__post_init__()
        if self.rounds > 1 and self.elites > self.candidates:
            raise DemokitError(
                f"Option elites: {self.candidates} --candidates have no {self.elites} best ones: "
                "take fewer, or more candidates."
            )

    @property
    def search(self) -> Search:
        """How it plans."""
        return Search(self.candidates, self.horizon, self.rounds, self.elites)
