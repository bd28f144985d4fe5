"""What the tests of every room share."""

import pytest
from click.testing import CliRunner

from demokit.cli import main


@pytest.fixture(scope="session")
def invoke():
    """Run a demokit command that should exit so; returns click's result."""

    def call(*args, exit_code=0):
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        assert result.exit_code == exit_code, result.output
        return result

    return call
