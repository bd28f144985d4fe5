"""Experience: who acts, the roll-outs, and demonstrations."""
