"""demokit: demonstration datasets with privileged state, for imitation meta-learning."""

from demokit.policies import load_policy

__all__ = ["__version__", "load_policy"]

__version__ = "0.2.0.dev0"
