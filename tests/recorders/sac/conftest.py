"""The smallest trainings that do everything, on Point."""

import pytest
from click.testing import CliRunner
from tiny_training import TINY

from demokit.cli import main


@pytest.fixture(scope="session")
def invoke():
    """Run a demokit command; returns click's result."""

    def call(*args, exit_code=0):
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        assert result.exit_code == exit_code, result.output
        return result

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory, invoke):
    """The folder of a finished tiny training."""
    folder = tmp_path_factory.mktemp("sac") / "run"
    invoke("train-expert", *TINY, "--output-dir", folder, "--out", folder / "copy.safetensors")
    return folder
