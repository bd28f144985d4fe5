"""Guided Meta-Policy Search: two methods, which differ in what explores and what adapts."""

from gmps.method import Method
from gmps.methods.gmps.options import GMPSOptions, LatentOptions

METHOD = Method(
    about="Guided Meta-Policy Search",
    source="Mendonca et al., 2019",
    adapts="a policy-gradient step on all parameters",
    options=GMPSOptions,
    module="gmps.methods.gmps.plain",
    imitates=True,
    told="demonstrations by task, rewards of roll-outs",
)
LATENT = Method(
    about="GMPS whose roll-outs explore by latents: each follows another training task's expert",
    source="ours, after Mendonca et al., 2019, and Gurumurthy et al., 2019",
    adapts="a step on a latent",
    options=LatentOptions,
    module="gmps.methods.gmps.latent",
    imitates=True,
    told="demonstrations by task, rewards of roll-outs, contexts of training tasks",
)
