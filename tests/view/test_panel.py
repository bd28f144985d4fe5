"""Keys, buttons and words of pages, and which of them drives."""

import json

from demokit.view.panel import Panel, page_with_panel
from demokit.view.seat import RELOAD_S, Seat


class Heard:
    def __init__(self):
        self.all = []

    def press(self, key):
        self.all.append("+" + key)

    def release(self, key):
        self.all.append("-" + key)

    def push(self, button):
        self.all.append(button)

    def take(self):
        taken, self.all = self.all, []
        return sorted(taken)


def driven():
    heard = Heard()
    panel = Panel(
        ("keep", "stop"), ("w", "page_up"), heard, guide=[("w", "forward")], pad=[("forward", "w")]
    )
    panel.enter("a")
    panel.enter("b")
    panel.drive("a")
    return panel, heard


def test_what_changed_is_told():
    panel, heard = driven()
    for said, told in (
        ("held w", ["+w"]),
        ("held w", []),
        ("held w page_up", ["+page_up"]),
        ("held page_up", ["-w"]),
        ("held z", ["-page_up"]),
        ("held w", ["+w"]),
        ("held", ["-w"]),
        ("push keep", ["keep"]),
        ("push keep ", []),
        ("push other", []),
        ("pull keep", []),
        ("", []),
    ):
        panel.hear("a", said)
        assert heard.take() == told, said


def test_a_button_that_asks_is_told_with_the_answer():
    class Answered(Heard):
        def push(self, button, text=None):
            self.all.append((button, text))

    heard = Answered()
    panel = Panel(("drop", "name"), (), heard, asks={"name": "Which name?"})
    panel.enter("a")
    panel.drive("a")
    assert json.loads(panel.tell("a"))["asks"] == {"name": "Which name?"}
    assert json.loads(panel.tell("b"))["asks"] == {}
    for said, told in (
        ("push name\na b\n<c>", [("name", "a b\n<c>")]),
        ("push name", [("name", "")]),
        ("push drop\nx", [("drop", None)]),
        ("push name\n" + "x" * 999, [("name", "x" * 200)]),
    ):
        panel.hear("a", said)
        assert heard.take() == told


def test_only_the_page_that_drives_is_heard():
    panel, heard = driven()
    panel.hear("b", "held w")
    panel.hear("b", "push keep")
    assert heard.take() == []
    # It holds the key already when its turn comes.
    panel.hear("a", "held page_up")
    panel.drive("b")
    assert heard.take() == ["+page_up", "+w", "-page_up"]
    panel.drive(None)
    assert heard.take() == ["-w"]


def test_a_page_that_is_gone_holds_nothing():
    panel, heard = driven()
    assert panel.driven
    panel.hear("a", "held w")
    panel.leave("a")
    assert heard.take() == ["+w", "-w"]
    assert not panel.driven
    panel.enter("a")
    assert panel.driven
    assert heard.take() == []


def test_a_page_is_told_what_is_its():
    panel, _ = driven()
    panel.words = (("", "</script>"), ("step", "1"))
    told = json.loads(panel.tell("a"))
    assert told == {
        "title": "demokit",
        "words": [["", "</script>"], ["step", "1"]],
        "keys": ["page_up", "w"],
        "buttons": ["keep", "stop"],
        "guide": [["w", "forward"]],
        "pad": [["forward", "w"]],
        "asks": {},
    }
    watching = json.loads(panel.tell("b"))
    assert watching["words"][:2] == told["words"]
    assert "This page watches" in watching["words"][2][1]
    assert not any(watching[name] for name in ("keys", "buttons", "guide", "pad"))


def test_text_of_files_is_shown_and_does_nothing():
    panel, _ = driven()
    panel.words = (("a\n\u202eb", "\x1b[2J"),)
    assert json.loads(panel.tell("a"))["words"] == [["a\\n\\u202eb", "\\x1b[2J"]]


def test_a_page_without_hands_only_shows():
    panel = Panel((), (), None)
    panel.enter("a")
    panel.drive("a")
    panel.hear("a", "held w")
    panel.hear("a", "push keep")
    panel.leave("a")


def test_the_panel_stands_at_the_end_of_the_page():
    page = page_with_panel("<head></head><body>x</body>")
    assert 'name="viewport"' in page.partition("</head>")[0]
    assert page.partition("</head>")[2].startswith("<body>x<style>")
    assert page.endswith("</script>\n</body>")


def test_one_page_drives_until_it_leaves():
    now = [0.0]
    seat = Seat(lambda: now[0])
    assert seat.take("a")
    assert seat.take("a")
    assert not seat.take("b")
    seat.ask("a")
    for page in "bcb":
        seat.ask(page)
    assert seat.asking == ["b", "c"]
    assert seat.next() is None
    seat.leave("b")
    assert seat.driver == "a"
    seat.leave("a")
    # It may only be loading again.
    assert seat.next() is None
    assert seat.take("a")
    seat.leave("a")
    now[0] += RELOAD_S
    assert [seat.next() for _ in range(3)] == ["b", "c", None]
    assert seat.take("c")


def test_a_page_that_gave_it_up_gets_it_back_at_once():
    seat = Seat(lambda: 0.0)
    seat.ask("a")
    assert seat.next() == "a"
    assert seat.take("a")
    seat.leave("a")
    seat.ask("b")
    seat.ask("a")
    assert seat.next() == "a"
    seat.ask("c")
    seat.forget("b")
    assert seat.asking == ["c"]
    assert seat.take("c")
    assert seat.asking == []
