"""Experts by reinforcement learning: SAC (Haarnoja et al., 2018) with privileged information.

stable-baselines3's SAC learns; ours are the contextual, privileged observation, the balanced
tasks, the simulations (one `mujoco.batch`, no processes) and the book-keeping.
"""
