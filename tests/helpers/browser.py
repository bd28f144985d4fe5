"""Headless Chromium, driven through its debugging port: keys as a person's keyboard sends them."""

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.request
from contextlib import ExitStack

from websockets.sync.client import connect

CODES = {"p": 80, "n": 78, "q": 81, "w": 87, "x": 88}


def chromium():
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


PATIENCE_S = 120  # software draws slowly on a busy machine


class Browser:
    """One page."""

    def __init__(self, folder, address):
        self._process = subprocess.Popen(
            [
                *(chromium(), "--headless=new", "--no-sandbox", "--remote-debugging-port=0"),
                *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
                *("--window-size=900,640", f"--user-data-dir={folder}", address),
            ],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        port_file = folder / "DevToolsActivePort"
        for _ in range(300):
            if port_file.exists() and port_file.read_text().strip():
                break
            time.sleep(0.1)
        port = port_file.read_text().split()[0]
        url = f"http://127.0.0.1:{port}/json"
        pages = [p for p in json.load(urllib.request.urlopen(url)) if p["type"] == "page"]
        self._open = ExitStack()
        address = pages[0]["webSocketDebuggerUrl"]
        self._socket = self._open.enter_context(connect(address, max_size=None))
        self._count = 0

    def do(self, method, **parameters):
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv(60))).get("id") != self._count:
            pass
        return answer.get("result", {})

    def key(self, kind, key):
        self.do(
            "Input.dispatchKeyEvent",
            type=kind,
            key=key,
            code=f"Key{key.upper()}",
            windowsVirtualKeyCode=CODES[key],
            **({"text": key} if kind == "keyDown" else {}),
        )

    def hold(self, key, program, until):
        """Hold a key until the program prints something, or ends.

        Again and again, as keys repeat themselves: a page that is still loading hears nothing.
        """
        start, end = len(program.text), time.monotonic() + PATIENCE_S
        while program.process.poll() is None and not re.search(until, program.text[start:]):
            assert time.monotonic() < end, f"{until} not in:\n{program.text[-3000:]}"
            self.key("keyDown", key)
            program.listen(0.5)
        self.key("keyUp", key)

    def click(self, x, y):
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, button="left", clickCount=1)
        time.sleep(0.5)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)

    def mouse(self, kind, x, y, **more):
        self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.do("Page.captureScreenshot")["data"]))

    def close(self):
        self._process.kill()
        self._process.wait()
        self._open.close()
