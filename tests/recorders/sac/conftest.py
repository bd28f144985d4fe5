"""The smallest trainings that do everything, on Point."""

import pytest
from tiny_training import TINY


@pytest.fixture(scope="session")
def trained(tmp_path_factory, invoke):
    """The folder of a finished tiny training."""
    folder = tmp_path_factory.mktemp("sac") / "run"
    invoke("train-expert", *TINY, "--output-dir", folder, "--out", folder / "copy.safetensors")
    return folder
