"""The simplest things that could be done: what learning to learn is to be measured by.

The best of some demonstrations replayed; imitation that is told the context, and search for the
context of a new task; and the oracle, which is told that too.
"""

from gmps.method import Method
from gmps.methods.simple.options import OracleOptions, ReplayOptions, SearchOptions

REPLAY = Method(
    about="no learning: the demonstrations' actions, replayed open loop",
    source="the simplest thing",
    adapts="keeping the demonstration that was paid best",
    options=ReplayOptions,
    module="gmps.methods.simple.replay",
    imitates=True,
    rolls_out=False,
    fewest_tasks=1,
    told="demonstrations by task",
)
SEARCH = Method(
    about="imitation told the context, and a search for the context of the new task",
    source="after Yu et al., 2019, Policy transfer with strategy optimization",
    adapts="search over the context, by the returns of its episodes",
    options=SearchOptions,
    module="gmps.methods.simple.search",
    imitates=True,
    told="demonstrations, contexts of training tasks",
)
ORACLE = Method(
    about="the same imitation, told the context of the new task: what knowing the task is worth",
    source="the least that is missing",
    adapts="nothing: it knows",
    options=OracleOptions,
    module="gmps.methods.simple.oracle",
    imitates=True,
    told="demonstrations, contexts of training tasks; of a new task its context",
)
