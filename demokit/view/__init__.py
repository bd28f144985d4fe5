"""Looking at simulations: MuJoCo's window, or a page in a browser; what both can do is `Scene`."""
