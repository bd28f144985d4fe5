"""Guided Meta-Policy Search: meta-learn from demonstrations a policy that adapts from reward."""
