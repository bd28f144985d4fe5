"""Policies: pure functions from parameters and observations to distributions of actions."""
