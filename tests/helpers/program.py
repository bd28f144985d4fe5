"""The real `demokit record` in a pseudo-terminal of its own."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

DEMOKIT = str(Path(sys.executable).parent / "demokit")
PATIENCE_S = 60


def heed_hangups():
    """In a child: SIGHUP ends it, whatever whoever runs the tests has made of that (nohup)."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Program:
    """Runs a command in a pseudo-terminal; everything it prints is in `text`."""

    def __init__(self, *arguments, environment=None):
        self.outside, self._inside = pty.openpty()
        self.before = termios.tcgetattr(self._inside)
        self.text = ""
        self.process = subprocess.Popen(
            [DEMOKIT, *map(str, arguments)],
            stdin=self._inside,
            stdout=self._inside,
            stderr=self._inside,
            env={**os.environ, "COLUMNS": "200", **(environment or {})},
            start_new_session=True,
            preexec_fn=heed_hangups,
        )

    def type(self, keys):
        os.write(self.outside, keys.encode())

    def listen(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.outside], [], [], left)[0]:
                self.text += os.read(self.outside, 65536).decode(errors="replace")

    def wait_for(self, pattern, since=None):
        """Wait until what is printed from here on, or since that length of `text`, shows it."""
        start = len(self.text) if since is None else since
        end = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.text[start:]):
            assert time.monotonic() < end, f"{pattern} not in:\n{self.text[-3000:]}"
            assert self.process.poll() is None, self.text
            self.listen(0.05)

    def end(self):
        """Wait for the end; returns the exit code."""
        end = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < end, self.text[-3000:]
            self.listen(0.05)
        self.listen(0.05)
        return self.process.returncode

    def send(self, number):
        os.kill(self.process.pid, number)

    def modes(self):
        return termios.tcgetattr(self._inside)

    def hang_up(self):
        """The terminal is gone, as when its window is closed."""
        os.close(self.outside)
        self.outside = None

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        if self.outside is not None:
            self.hang_up()
        os.close(self._inside)
