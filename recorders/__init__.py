"""Recorders: one recording loop, and the action sources that drive it."""

SCRIPTED = "scripted"
"""The expert who demonstrates unless another is named."""
EPISODES_PER_TASK = 10
"""Kept of each task unless another number is named."""
