"""Task inference: learning what tells tasks apart, and which one it is."""

from gmps.method import Method
from gmps.methods.inference.options import InferenceOptions

METHOD = Method(
    about="task inference: a task space learned from demonstrations, models of what tasks do",
    source="ours, after Rakelly et al., 2019, and Zintgraf et al., 2020",
    adapts="the most likely task, given every transition so far",
    options=InferenceOptions,
    module="gmps.methods.inference.training",
    imitates=True,
    told="demonstrations by task, rewards of roll-outs of training tasks",
)
