"""A short finished run of every method."""

import pytest
from by_hand import METHODS
from short_run import DEMOS, options_of, trained_in

from gmps.experience.demos import load_demos


@pytest.fixture(scope="session")
def demos(point_demos):
    return load_demos(point_demos, DEMOS)


@pytest.fixture(scope="session")
def runs(tmp_path_factory, demos):
    """Their folder; each has the name of its method."""
    root = tmp_path_factory.mktemp("methods")
    for name in METHODS:
        trained_in(root / name, demos, name, options_of(name, iterations=1))
    return root
