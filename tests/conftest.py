"""What the tests of every room share."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from demokit.cli import main
from gmps import method as registry

PACKAGES = Path(__file__).parent / "packages"


@pytest.fixture(scope="session")
def invoke():
    """Run a demokit command that should exit so; returns click's result."""

    def call(*args, exit_code=0):
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        assert result.exit_code == exit_code, result.output
        return result

    return call


@pytest.fixture
def other_package(monkeypatch):
    """The name of a method whose package is installed beside demokit."""
    monkeypatch.syspath_prepend(PACKAGES)
    monkeypatch.setenv("PYTHONPATH", str(PACKAGES))
    registry._entries.cache_clear()
    yield "random-search"
    registry._entries.cache_clear()


@pytest.fixture
def disk(tmp_path):
    """A file system of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder])
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)
