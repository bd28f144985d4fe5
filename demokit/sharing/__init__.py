"""Handing on what was made: bundles of a dataset or a run, and where they are put and got."""
