"""Guided Meta-Policy Search."""
