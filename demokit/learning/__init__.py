"""Torch parts that experts and meta-learners share: networks, distributions, checkpoints."""
