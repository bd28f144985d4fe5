"""Meta-learning from reward alone, by gradient: three methods, which differ in their losses."""

from gmps.method import Method
from gmps.methods.maml.options import EMAMLOptions, MAMLOptions, ProMPOptions

_MODULE = "gmps.methods.maml.algorithm"
_ADAPTS = "policy-gradient steps on all parameters, exploration among them"
_TOLD = "rewards of roll-outs"

METHOD = Method(
    about="Model-agnostic meta-learning, by reinforcement learning",
    source="Finn et al., 2017",
    adapts=_ADAPTS,
    options=MAMLOptions,
    module=_MODULE,
    told=_TOLD,
)
EMAML = Method(
    about="MAML whose roll-outs before adaptation are credited with what follows them",
    source="Stadie et al., 2018, as Rothfuss et al., 2019, have it",
    adapts=_ADAPTS,
    options=EMAMLOptions,
    module=_MODULE,
    told=_TOLD,
)
PROMP = Method(
    about="Proximal meta-policy search: MAML by clipped steps, near the policy that explored",
    source="Rothfuss et al., 2019",
    adapts=_ADAPTS,
    options=ProMPOptions,
    module=_MODULE,
    told=_TOLD,
)
