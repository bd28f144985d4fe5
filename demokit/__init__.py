"""demokit: demonstration datasets with privileged state, for imitation meta-learning."""

from importlib.metadata import version

__version__ = version("demokit")
