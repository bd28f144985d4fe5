"""Recorders: one recording loop, and the action sources that drive it."""

SCRIPTED = "scripted"
"""The expert who demonstrates unless another is named."""
EPISODES_PER_TASK = 10
"""Kept of each task unless another number is named."""
WEAK_SUCCESS = 0.5
"""Below that share of solved episodes a task is named."""
