"""A display of one's own, for tests of windows and keys."""

import os
import shutil
import subprocess
from importlib.util import find_spec

import pytest


@pytest.fixture(scope="module")
def display():
    """The number of an X server that ends with the tests."""
    missing = [tool for tool in ("Xvfb", "xdotool") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}: apt install xvfb xdotool")
    if find_spec("pynput") is None:
        pytest.skip("needs pynput: pip install pynput")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24", "-nolisten", "tcp"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as answer:
        number = answer.readline().strip()
    yield f":{number}"
    server.terminate()
    server.wait()
