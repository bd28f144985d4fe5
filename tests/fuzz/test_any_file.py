"""Any bytes as any file: an answer or one sentence, within limits. `make fuzz` goes on longer."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fuzz.py")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of processes")
def test_changed_files_of_every_kind(tmp_path):
    command = [sys.executable, str(PROGRAM), "--cases", "400", "--keep", str(tmp_path / "kept")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
