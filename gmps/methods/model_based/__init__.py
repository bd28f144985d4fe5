"""MAML with a model: dynamics and rewards that are learned to be adapted, and planning in them."""

from gmps.method import Method
from gmps.methods.model_based.options import ModelBasedOptions

METHOD = Method(
    about="MAML with a model: dynamics and rewards learned to be adapted, planning in them",
    source="Nagabandi et al., 2019 (GrBAL, ReBAL)",
    adapts="its model, by the last transitions, at every step of an episode",
    options=ModelBasedOptions,
    module="gmps.methods.model_based.algorithm",
    told="rewards of roll-outs",
)
