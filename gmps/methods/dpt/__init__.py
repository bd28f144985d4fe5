"""A transformer that reads what was met of a task, and does what its expert would do."""

from gmps.method import Method
from gmps.methods.dpt.options import DPTOptions

METHOD = Method(
    about="decision-pretrained transformer: imitation given contexts of roll-outs",
    source="Lee et al., 2023",
    adapts="reading the transitions of its episodes: no step, no gradient",
    options=DPTOptions,
    module="gmps.methods.dpt.algorithm",
    imitates=True,
    told="demonstrations by task, rewards of roll-outs of training tasks",
)
