"""A small real dataset and short runs on it, shared by the tests of gmps."""

import pytest
from click.testing import CliRunner
from short_run import DEMOS, NUM_TASKS, SHORT

from demokit.cli import main


@pytest.fixture(scope="session")
def invoke():
    """Run a demokit command; returns click's result with the exception, if any, raised."""

    def call(*args, exit_code=0):
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        assert result.exit_code == exit_code, result.output
        return result

    return call


@pytest.fixture(scope="session")
def point_demos(tmp_path_factory, invoke):
    path = tmp_path_factory.mktemp("demos") / "point.hdf5"
    invoke(
        *("record", "--env", "point", "--tasks", NUM_TASKS, "--episodes-per-task", DEMOS),
        *("--noise", "0.2", "--out", path),
    )
    return path


@pytest.fixture(scope="session")
def point_run(tmp_path_factory, invoke, point_demos):
    """A finished short GMPS run on Point."""
    folder = tmp_path_factory.mktemp("runs") / "gmps-0"
    invoke("meta-train", "--demos", point_demos, "--output-dir", folder, *SHORT)
    return folder
