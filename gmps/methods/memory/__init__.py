"""Learning to adapt without gradients: a policy that remembers the episodes of a trial."""

from gmps.method import Method
from gmps.methods.memory.options import RL2Options, SnailOptions

_MODULE = "gmps.methods.memory.algorithm"
_ADAPTS = "remembering its episodes: no step, no gradient"
_TOLD = "rewards of roll-outs"

RL2 = Method(
    about="RL2: a recurrent policy, by reinforcement learning over trials of several episodes",
    source="Duan et al., 2016; Wang et al., 2016; as Zintgraf et al., 2020, have it",
    adapts=_ADAPTS,
    options=RL2Options,
    module=_MODULE,
    told=_TOLD,
)

SNAIL = Method(
    about="SNAIL: the same with temporal convolutions and attention over the trial so far",
    source="Mishra et al., 2018",
    adapts=_ADAPTS,
    options=SnailOptions,
    module=_MODULE,
    told=_TOLD,
)
