"""PEARL: a posterior over the task from transitions, and off-policy learning given it."""

from gmps.method import Method
from gmps.methods.pearl.options import PearlOptions

METHOD = Method(
    about="PEARL: soft actor-critic under a latent, inferred from the transitions of a task",
    source="Rakelly et al., 2019",
    adapts="the posterior of a latent, given every transition so far: no step, no gradient",
    options=PearlOptions,
    module="gmps.methods.pearl.algorithm",
    told="rewards of roll-outs",
)
