"""Recorders: one recording loop, and the action sources that drive it."""
