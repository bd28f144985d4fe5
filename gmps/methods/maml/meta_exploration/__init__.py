"""Model-agnostic meta-exploration: one policy explores, another exploits under a latent."""

from gmps.method import Method
from gmps.methods.maml.meta_exploration.options import ExplorationOptions

METHOD = Method(
    about="Meta-exploration: a policy of its own explores, and a latent adapts by self-supervision",
    source="Gurumurthy et al., 2019",
    adapts="a gradient step on a latent, of the error of a network that predicts returns",
    options=ExplorationOptions,
    module="gmps.methods.maml.meta_exploration.algorithm",
    told="rewards of roll-outs",
)
