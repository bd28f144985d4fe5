"""Runs side by side: measured on the same held-out tasks, reported, and whole plans of them."""
