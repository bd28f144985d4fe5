"""The browser as a device: the real page in a real browser."""

import re
import signal

import pytest
from browser import Browser, chromium
from program import Program
from test_terminal import replays

from demokit.data import open_dataset
from demokit.view.web import KEYS, imgui_keys
from recorders.teleop.keys import NAMED_KEYS, PLAIN_KEYS, load_bindings

DISCARD_BUTTON = 182, 29  # pixels from the top left of the page


def test_the_page_knows_every_key_that_can_be_bound():
    assert set(KEYS) == set(NAMED_KEYS)
    bindings = load_bindings()
    assert all(imgui_keys(key) for key in (*bindings.hold, *bindings.press, *PLAIN_KEYS))


@pytest.mark.skipif(chromium() is None, reason="needs a browser: apt install chromium")
@pytest.mark.realtime
def test_the_program_in_a_browser(tmp_path):
    path = tmp_path / "hand.hdf5"
    words = (
        *("record", "--env", "door", "--device", "web", "--tasks", 1, "--num-episodes", 5),
        *("--rate", 10, "--countdown", 0.2, "--license", "MIT", "--out", path),
    )
    hand = Program(*words)
    browser = None
    try:
        hand.wait_for("No browser is there")
        address = re.search(r"Open (http://127\.0\.0\.1:\d+/)", hand.text).group(1)
        browser = Browser(tmp_path / "profile", address)
        hand.wait_for("the device is back")
        browser.hold("p", hand, "recording")
        browser.hold("w", hand, "step [2-9][0-9]/")
        browser.hold("n", hand, "recording  kept 1/5")
        while "dropped" not in hand.text:
            browser.click(*DISCARD_BUTTON)
            hand.listen(3)
        hand.wait_for("step [1-9]")
        browser.close()
        hand.wait_for("No browser is there.*or answer here.*paused")
        hand.type("n")
        hand.wait_for("kept 2/5")
        hand.send(signal.SIGKILL)
        hand.end()
        # Nothing is in progress: it ends without a question.
        hand = Program(*words, "--resume")
        hand.wait_for("No browser is there.*kept 2/5")
        hand.send(signal.SIGTERM)
        assert hand.end() == 0, hand.text
    finally:
        hand.close()
        if browser is not None:
            browser.close()
    replays(path, 2)
    with open_dataset(path) as dataset:
        assert (dataset[0].actions[:, 1] > 0.5).sum() > 5
        assert dataset[0].options["device"] == dataset[0].options["view"] == "web"
