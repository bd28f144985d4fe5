"""The pictures of docs/teleoperation.md: python docs/teleop_pictures.py (Xvfb, Chromium)."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageGrab

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests" / "helpers"))

from browser import Browser  # noqa: E402
from program import Program  # noqa: E402

COLOURS = 128
DISPLAY = ":93"
RECORD = ("record", "--env", "door", "--tasks", 1, "--num-episodes", 10, "--rate", 5)


def save(picture: Image.Image, name: str) -> None:
    """A small PNG under docs/pictures."""
    path = DOCS / "pictures" / name
    picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)
    print(path)


def window(folder: Path) -> None:
    """MuJoCo's window, a few steps into an episode."""
    server = subprocess.Popen(["Xvfb", DISPLAY, "-screen", "0", "960x720x24"])
    time.sleep(2)
    desk = {"DISPLAY": DISPLAY, "WAYLAND_DISPLAY": "", "SSH_CONNECTION": "", "SSH_TTY": ""}
    out = folder / "window.hdf5"
    hand = Program(*RECORD, "--device", "keyboard", "--out", out, environment=desk)
    try:
        hand.wait_for("begins when you move")
        subprocess.run(["xdotool", "keydown", "e"], env={**os.environ, **desk}, check=True)
        hand.wait_for("step 1[2-9]/100")
        screen = ImageGrab.grab(xdisplay=DISPLAY)
        save(screen.crop(screen.getbbox()), "teleop-window.png")
    finally:
        hand.close()
        server.terminate()


def web(folder: Path) -> None:
    """The web page, a few steps into an episode."""
    hand = Program(*RECORD, "--device", "web", "--out", folder / "web.hdf5")
    browser = None
    try:
        hand.wait_for("No browser is there")
        address = re.search(r"Open (http\S+)", hand.text).group(1)
        browser = Browser(folder / "profile", address)
        browser.hold("e", hand, "recording")
        hand.wait_for("step [4-9][0-9]/100|ended")  # software draws the page slowly
        browser.picture(folder / "web.png")
        save(Image.open(folder / "web.png"), "teleop-web.png")
    finally:
        hand.close()
        if browser is not None:
            browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        window(Path(scratch))
        web(Path(scratch))
