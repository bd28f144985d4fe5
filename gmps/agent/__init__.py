"""Trained policies for any loop: what `demokit.load_policy` gives, see `demokit.protocols`."""
