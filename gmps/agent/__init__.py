"""Trained policies for any loop: what `demokit.load_policy` gives, see `demokit.protocols`."""

from gmps.agent.agent import TrainedAgent, load_policy
from gmps.agent.trial import NewTask

__all__ = ["NewTask", "TrainedAgent", "load_policy"]
