"""Recording by hand: one file per device, a session that runs them, views to look at."""
