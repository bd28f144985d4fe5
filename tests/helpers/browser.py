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


def chromium():
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


PATIENCE_S = 120  # software draws slowly on a busy machine


class Browser:
    """One page; further words for its command line may follow."""

    def __init__(self, folder, address, *words):
        self._process = subprocess.Popen(
            [
                *(chromium(), "--headless=new", "--no-sandbox", "--remote-debugging-port=0"),
                *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
                *("--window-size=900,640", f"--user-data-dir={folder}", *words, address),
            ],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self._open = ExitStack()
        self._count = 0
        try:
            self._connect(folder / "DevToolsActivePort")
        except BaseException:
            self.close()
            raise

    def _connect(self, port_file):
        patient(lambda: port_file.exists() and port_file.read_text().strip(), "a debugging port")
        url = f"http://127.0.0.1:{port_file.read_text().split()[0]}/json"
        pages = [p for p in json.load(urllib.request.urlopen(url)) if p["type"] == "page"]
        address = pages[0]["webSocketDebuggerUrl"]
        self._socket = self._open.enter_context(connect(address, max_size=None))

    def send(self, method, **parameters):
        """Ask for something, and do not wait for it."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))

    def do(self, method, **parameters):
        self.send(method, **parameters)
        while (answer := json.loads(self._socket.recv(PATIENCE_S))).get("id") != self._count:
            pass
        return answer.get("result", {})

    def evaluate(self, script):
        """The value of a script in the page; a promise is awaited."""
        found = self.do(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found.get("result", {}).get("value")  # none while the page is replaced

    def text(self):
        return self.evaluate("document.body ? document.body.innerText : ''")

    def wait_for(self, script):
        patient(lambda: self.evaluate(script), script)

    def wait_to_drive(self):
        """Until the page hears keys: only the one that drives has buttons."""
        self.wait_for("document.querySelector('#buttons button') !== null")

    def press(self, key):
        """A key goes down; the page has heard it when this returns."""
        self.do("Input.dispatchKeyEvent", **_event("keyDown", key))

    def release(self, key):
        self.do("Input.dispatchKeyEvent", **_event("keyUp", key))

    def tap(self, key):
        """A key goes down and up at once."""
        self.send("Input.dispatchKeyEvent", **_event("keyDown", key))
        self.release(key)

    def hold(self, key, program, until):
        """Hold a key until the program prints something, or ends."""
        self.wait_to_drive()
        start, end = len(program.text), time.monotonic() + PATIENCE_S
        self.press(key)
        while program.process.poll() is None and not re.search(until, program.text[start:]):
            assert time.monotonic() < end, f"{until} not in:\n{program.text[-3000:]}"
            program.listen(0.1)
        if program.process.poll() is None:
            self.release(key)

    def be_a_phone(self, *, dark=False):
        """From now on 390 pixels wide, with a touch screen; the page is loaded again."""
        size = {"width": 390, "height": 780, "deviceScaleFactor": 1, "mobile": True}
        self.do("Emulation.setDeviceMetricsOverride", **size)
        self.do("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=5)
        if dark:
            scheme = {"name": "prefers-color-scheme", "value": "dark"}
            self.do("Emulation.setEmulatedMedia", features=[scheme])
        self.evaluate("window.before = true")
        self.do("Page.reload")
        self.wait_for("!window.before")

    def middle(self, name, place="#buttons"):
        """Where a button is, in pixels."""
        button = (
            f"[...document.querySelectorAll('{place} button')].find(b => b.innerText=='{name}')"
        )
        return self.evaluate(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])({button}.getBoundingClientRect())"
        )

    def push(self, name):
        """Click a button of the panel."""
        x, y = self.middle(name)
        for kind in ("mousePressed", "mouseReleased"):
            self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def touch(self, *names, place="#buttons"):
        """A finger on each of these buttons, until `lift`."""
        middles = [self.middle(name, place) for name in names]
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(middles)]
        self.do("Input.dispatchTouchEvent", type="touchStart", touchPoints=points)

    def lift(self):
        """All fingers off."""
        self.do("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.do("Page.captureScreenshot")["data"]))

    def close(self):
        self._process.kill()
        self._process.wait()
        self._open.close()


def patient(wanted, words):
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE_S
    while not wanted():
        assert time.monotonic() < end, f"there is still not: {words}"
        time.sleep(0.1)


def _event(kind, key):
    typed = {"text": key} if kind == "keyDown" else {}
    code = {"code": f"Key{key.upper()}", "windowsVirtualKeyCode": ord(key.upper())}
    return {"type": kind, "key": key, **code, **typed}
