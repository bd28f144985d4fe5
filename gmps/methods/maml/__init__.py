"""Meta-learning from reward alone, by gradient: methods that differ in their losses.

And what they are to be better than: one policy for all training tasks, fine-tuned.
"""

from gmps.method import Method
from gmps.methods.maml.options import (
    EMAMLOptions,
    MAESNOptions,
    MAMLOptions,
    MultiTaskOptions,
    ProMPOptions,
)

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
MULTITASK = Method(
    about="one policy that reinforcement learning trains on all tasks, then fine-tuned",
    source="the pretrained baseline of Finn et al., 2017",
    adapts="policy-gradient steps on all parameters, with the best step size",
    options=MultiTaskOptions,
    module=_MODULE,
    told=_TOLD,
)
MAESN = Method(
    about="MAESN: roll-outs explore by a latent, drawn once for each",
    source="Gupta et al., 2018",
    adapts="policy-gradient steps on a Gaussian over latents, with learned step sizes",
    options=MAESNOptions,
    module="gmps.methods.maml.maesn",
    told=_TOLD,
)
