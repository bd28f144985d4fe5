"""demokit: demonstration datasets with privileged state, for imitation meta-learning."""

from importlib.metadata import version

from demokit.policies import load_policy

__all__ = ["__version__", "load_policy"]

__version__ = version("demokit")
