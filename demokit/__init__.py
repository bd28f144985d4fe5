"""demokit: demonstration datasets with privileged state, for imitation meta-learning."""

from demokit.calls import evaluate, meta_train, record
from demokit.policies import load_policy

__all__ = ["__version__", "evaluate", "load_policy", "meta_train", "record"]

__version__ = "0.2.0.dev0"
