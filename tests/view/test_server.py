"""The web page attacked: raw connections, floods, lost handles, and pages of other sites."""

import contextlib
import http.server
import json
import os
import random
import re
import resource
import socket
import threading
import time
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from browser import Browser, chromium, patient
from program import Program
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from demokit.envs import make_family
from demokit.envs.batch import make_sims
from demokit.envs.tasks import make_tasks
from demokit.view import server, studio, wire
from demokit.view.web import WebPage

PATIENCE_S = 60
PHASES = ("setup", "call", "teardown")
needs_browser = pytest.mark.skipif(
    chromium() is None, reason="needs a browser: apt install chromium"
)


class Heard:
    """Hands that note what they are told."""

    def __init__(self):
        self.all = []

    def press(self, key):
        self.all.append(("press", key))

    def release(self, key):
        self.all.append(("release", key))

    def push(self, button):
        self.all.append(("push", button))


@pytest.fixture(scope="module")
def heard():
    return Heard()


@pytest.fixture(scope="module")
def page(heard):
    page = WebPage(
        make_family("door"), "127.0.0.1", 0, buttons=("keep",), keys=("w", "x"), hands=heard
    )
    yield page
    page.close()


@pytest.fixture(scope="module")
def port(page):
    return urlsplit(page.address).port


@pytest.fixture
def person(page, heard, tmp_path):
    """Somebody whose browser drives the page."""
    browser = Browser(tmp_path / "profile", page.address)
    try:
        browser.wait_to_drive()
        heard.all.clear()
        yield browser
    finally:
        browser.close()
    patient(lambda: not page.visited, "nobody there")


@pytest.fixture(autouse=True)
def no_traceback(caplog):
    """Whatever visitors do, it is theirs: asyncio would log what nobody expected."""
    yield
    found = [record for when in PHASES for record in caplog.get_records(when)]
    assert [record.getMessage() for record in found if record.levelname == "ERROR"] == []


def head(port, path="/", *headers, method="GET"):
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def ask(port, request):
    """All that is answered to some bytes."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as visitor:
        visitor.sendall(request)
        return read_all(visitor)


def read_all(visitor):
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := visitor.recv(65536):
            parts.append(part)
    return b"".join(parts)


def websocket(port, path, **more):
    more = {"origin": f"http://127.0.0.1:{port}", "max_queue": None, **more}
    return connect(f"ws://127.0.0.1:{port}{path}", compression=None, **more)


def is_served(port):
    return ask(port, head(port)).startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_page_and_its_parts_are_served_to_itself_only(port):
    page = ask(port, head(port))
    assert page.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"X-Frame-Options: DENY" in page
    assert b"Access-Control-Allow-Origin" not in page
    assert b'id="panel"' in page
    assert ask(port, head(port, "/web_client.wasm")).count(b"\0asm") == 1
    assert b"200 OK" in ask(port, head(port, "/assets/AtkinsonHyperlegibleNext[wght].ttf"))
    whole = ask(port, head(port, "/model")).partition(b"\r\n\r\n")[2]
    size = json.loads(ask(port, head(port, "/model?total_bytes")).partition(b"\r\n\r\n")[2])
    assert size["total_bytes"] == len(whole)
    part = ask(port, head(port, "/model?offset_bytes=8&size_bytes=100")).partition(b"\r\n\r\n")[2]
    assert part == whole[8:108]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/drop?sid=a", 404),
        ("/index.html", 404),
        ("/../studio/__init__.py", 404),
        ("/assets/%2e%2e/__init__.py", 404),
        ("/assets//etc/passwd", 404),
        ("/model?crc32=1", 404),
        ("/model?offset_bytes=-1&size_bytes=9e9", 200),
        ("/state?sid=a", 426),
        ("/\x00", 404),
    ],
)
def test_nothing_else_is_there(port, path, status):
    assert ask(port, head(port, path)).startswith(f"HTTP/1.1 {status} ".encode())


def test_what_is_no_request_is_answered_so(port):
    for nonsense in (
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"a" * wire.HEAD_BYTES * 4 + b"\r\n\r\n",
        head(port, "/", "Content-Length: 3", method="POST") + b"a=1",
    ):
        answer = ask(port, nonsense)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert ask(port, head(port, method="DELETE")).startswith(b"HTTP/1.1 405 ")
    for key in ("", "Sec-WebSocket-Key: short"):
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key)
        own = f"Origin: http://127.0.0.1:{port}"
        words = (word for word in (*upgrade, own) if word)
        assert ask(port, head(port, "/ui?sid=a", *words)).startswith(b"HTTP/1.1 400 ")
    assert is_served(port)


@pytest.mark.parametrize("path", ["/ui?sid=a", "/state?sid=a", "/panel?sid=a", "/drop?sid=a"])
def test_websockets_are_for_its_own_pages(port, path):
    for origin in ("http://evil.example", f"http://localhost:{port}", "null", None):
        with pytest.raises(InvalidStatus, match="403"):
            websocket(port, path, origin=origin)


@pytest.mark.parametrize("query", ["", "?sid=", "?sid=a&sid=b", "?sid=" + "a" * 65, "?sid=../x"])
def test_a_page_has_a_name(port, query):
    with pytest.raises(InvalidStatus, match="400"):
        websocket(port, "/state" + query)


def test_the_other_end_of_a_tunnel_is_at_home(port):
    """`ssh -L 9999:127.0.0.1:8080`: the browser asks for localhost:9999, and comes here."""
    with socket.create_connection(("127.0.0.1", port)) as tunnel:
        origin = "http://localhost:9999"
        with connect("ws://localhost:9999/state?sid=a", sock=tunnel, origin=origin) as line:
            assert "role=spectator" in line.recv()


@needs_browser
@pytest.mark.usefixtures("person")
def test_there_is_no_other_way_in(port):
    """The studio has ports of its own, where anybody would take the controls."""
    assert listening() == {port}


def listening():
    """The ports that this process listens on."""
    found = set()
    for handle in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(handle)) as each:
            if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.add(each.getsockname()[1])
    return found


def still_drives(page, person):
    """Whether the person has the controls, and sees what happens."""
    return page.visited and "keep" in person.text() and not person.evaluate("Module.isSpectator")


@needs_browser
def test_nobody_takes_the_controls_from_a_person(page, heard, port, person):
    name = person.evaluate("Module.session_id")
    with (
        websocket(port, "/state?sid=intruder") as line,
        websocket(port, "/panel?sid=intruder") as p,
    ):
        for word in ("force_control", "request_control", "max_spectators=0", "theme=light"):
            line.send(word)
        line.send(b"\0" * 64)
        p.send("held w x")
        p.send("push keep")
        with websocket(port, "/ui?sid=intruder") as ui:
            assert end_of(ui) == 4001
        while "queue_pos=1" not in (roster := str(line.recv())):
            pass
        assert "role=spectator" in roster
        assert json.loads(p.recv())["buttons"] == []
        assert heard.all == []
        person.press("w")
        person.release("w")
        patient(lambda: len(heard.all) == 2, "the key of the person")
        assert heard.all == [("press", "w"), ("release", "w")]
        assert still_drives(page, person)
        assert person.evaluate("Module.session_id") == name


@needs_browser
def test_a_person_turns_the_picture(page, person):
    sims = make_sims(page._family, 1, num_threads=1)
    context = make_tasks(page._family, "uniform", "train", num_tasks=1)[0].context
    sims.reset(np.array([context]), [0])
    before = page._camera.azimuth

    def dragged():
        """The page looks at the mouse when it draws, and may draw seldom."""
        for kind, x, buttons in (
            *(("mouseMoved", 400, 0), ("mousePressed", 400, 1)),
            *(("mouseMoved", 450, 1), ("mouseMoved", 500, 1), ("mouseReleased", 500, 0)),
        ):
            how = {"button": "left" if kind != "mouseMoved" or buttons else "none"}
            person.do("Input.dispatchMouseEvent", type=kind, x=x, y=250, buttons=buttons, **how)
            for _ in range(10):
                page.show(sims.get_state().physics[0], np.array(context))
                time.sleep(0.05)
        return page._camera.azimuth != before

    patient(dragged, "the picture turned")


def test_a_camera_that_is_none_is_left(page):
    rng, before = random.Random(1), page._camera.azimuth
    for size in range(studio.CAMERA_BYTES):
        assert not page._turned.apply(page._camera, rng.randbytes(size))
    assert page._camera.azimuth == before


ATTACK = """
const here = "127.0.0.1:PORT", said = {};
const line = (path) => new Promise((done) => {
  const line = new WebSocket(`ws://${here}${path}`);
  line.onopen = () => { line.send("force_control"); line.send("held w"); done("open"); };
  line.onerror = () => done("refused");
});
const get = (path, how) => fetch(`http://${here}${path}`, how).then(
  (answer) => answer.type + answer.status, () => "refused");
const load = (kind, path) => new Promise((done) => {
  const element = document.createElement(kind);
  element.onload = () => done("loaded"); element.onerror = () => done("refused");
  element.src = `http://${here}${path}`; document.body.append(element);
});
(async () => {
  for (const path of ["/ui", "/state", "/panel", "/drop"]) said[path] = await line(path + "?sid=a");
  for (const path of ["/", "/model", "/web_client.js"]) said["get " + path] = await get(path, {});
  said.post = await get("/drop", { method: "POST", body: "x", mode: "cors" });
  said.script = await load("script", "/web_client.js");
  said.picture = await load("img", "/favicon.ico");
  await fetch("/said?" + encodeURIComponent(JSON.stringify(said)));
})();
"""


@needs_browser
def test_a_page_of_another_site_gets_nothing(page, heard, port, person, tmp_path):
    script = ATTACK.replace("PORT", str(port))
    with site(f"<body><script>{script}</script></body>") as (address, said):
        visitor = Browser(tmp_path / "visitor", address)
        try:
            patient(lambda: said, "what the page found")
        finally:
            visitor.close()
    assert set(said[0].values()) == {"refused"}, said
    assert len(said[0]) == 10
    assert heard.all == []
    assert still_drives(page, person)


@contextlib.contextmanager
def site(text):
    """A site on another port: its address, and what its page reports."""
    said = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = urlsplit(self.path)
            if path.path == "/said":
                said.append(json.loads(next(iter(parse_qs(path.query + "=", True)))))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        listener = threading.Thread(target=other.serve_forever)
        listener.start()
        try:
            yield f"http://127.0.0.1:{other.server_address[1]}/", said
        finally:
            other.shutdown()
            listener.join()


@needs_browser
def test_a_name_that_is_made_to_lead_here_is_refused(port, tmp_path):
    """DNS rebinding: the browser takes the page for one of evil.example."""
    rules = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    visitor = Browser(tmp_path / "visitor", f"http://evil.example:{port}/", rules)
    try:
        patient(lambda: "Open it by its address." in visitor.text(), "a refusal")
    finally:
        visitor.close()


@needs_browser
def test_a_page_that_is_loaded_again_drives_again(page, port, person):
    with websocket(port, "/state?sid=other") as other:
        other.send("request_control")
        while "queue_pos=1" not in str(other.recv()):
            pass
        person.evaluate("window.before = true")
        person.send("Page.reload")
        person.wait_for("window.before === undefined")
        person.wait_to_drive()
        assert still_drives(page, person)


def test_frames_and_messages_have_an_end(port):
    for huge in ("a" * (wire.MESSAGE_BYTES + 1), ["a" * 1000] * (wire.MESSAGE_BYTES // 1000 + 1)):
        with websocket(port, "/panel?sid=a") as line:
            line.recv()
            with contextlib.suppress(ConnectionClosed):
                line.send(huge)
            assert end_of(line) == 1009
    # A length of 2^62, of which nothing comes, and text that is none.
    for frame in (b"\x82\xff" + b"\x3f" + b"\xff" * 7 + bytes(4), b"\x81\x81" + bytes(4) + b"\xff"):
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as visitor:
            visitor.sendall(upgrade(port, "/panel?sid=a") + frame)
            read_all(visitor)
    assert is_served(port)


def end_of(line):
    """The code with which a WebSocket is closed."""
    try:
        while True:
            line.recv(PATIENCE_S)
    except ConnectionClosed as ended:
        return ended.rcvd.code


def upgrade(port, path):
    return head(
        port,
        path,
        f"Origin: http://127.0.0.1:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )


def test_nonsense_on_the_lines_moves_nothing(port, heard):
    """Said by the page that drives: what all others say is not even heard."""
    with driving(port, "a") as panel, websocket(port, "/state?sid=a") as state:
        heard.all.clear()
        for line in (state, panel):
            for message in (
                "",
                " ",
                "held",
                "held" + " q" * 9000,
                "held W \0w w\0x",
                "push keep\0",
                "push drop",
                "grant",
                b"",
                b"x",
            ):
                line.send(message)
            line.send("held w")
        patient(lambda: heard.all, "the key that means something")
        assert heard.all == [("press", "w")]


@contextlib.contextmanager
def driving(port, page):
    """The panel of a page that has the controls, and hears what it can press."""
    with websocket(port, f"/ui?sid={page}") as ui, websocket(port, f"/panel?sid={page}") as panel:
        ui.send(b"hello")
        assert ui.recv(PATIENCE_S) == b"hello"
        while not json.loads(panel.recv(PATIENCE_S))["buttons"]:
            pass
        yield panel


def test_a_page_that_never_draws_gives_the_controls_up(port, monkeypatch):
    """It would greet first, and has long enough for that on a busy machine."""
    assert studio.GREETING_S >= 60
    with monkeypatch.context() as patched:
        patched.setattr(studio, "GREETING_S", 1)
        with websocket(port, "/ui?sid=hung") as hung, pytest.raises(ConnectionClosed):
            hung.recv(PATIENCE_S)
    with driving(port, "a"):
        pass


def test_random_bytes_are_outlived(page, port):
    rng = random.Random(20)
    for _ in range(300):
        path = rng.choice(["/ui?sid=a", "/state?sid=a", "/panel?sid=a", "/model?crc32=a"])
        request = upgrade(port, path)
        frames = b"".join(random_frame(rng) for _ in range(rng.randrange(12)))
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as visitor:
            visitor.settimeout(PATIENCE_S)
            visitor.sendall(spoilt(rng, request) if rng.random() < 0.3 else request)
            visitor.sendall(spoilt(rng, frames) if rng.random() < 0.3 else frames)
            visitor.shutdown(socket.SHUT_WR)
            visitor.recv(100)
    patient(lambda: not any(page._studio._server._lines.values()), "the end of all lines")
    assert is_served(port)


def random_frame(rng):
    """A WebSocket's frame: of any kind, or what a page might say."""
    words = [b"held w", b"push keep", b"state_ack", b"force_control", b"leave_queue", b"\xff"]
    size = rng.choice([8, 120, 616])
    kind, data = rng.choice(
        [
            (0x81, rng.choice(words)),
            (0x82, size.to_bytes(4, "little") + rng.randbytes(size - 4)),
            (rng.randrange(256), rng.randbytes(rng.randrange(126))),
        ]
    )
    length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2)
    return bytes([kind]) + length + bytes(4) + data


def spoilt(rng, data):
    """With some bytes of it lost, and others in their place."""
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + rng.randbytes(rng.randrange(20)) + data[end:]


def test_there_is_room_for_so_many_pages(port):
    with contextlib.ExitStack() as pages:
        for number in range(server.MAX_PAGES):
            pages.enter_context(websocket(port, f"/state?sid={number}")).recv()
        late = pages.enter_context(websocket(port, "/state?sid=late"))
        assert end_of(late) == server.FULL
        # A page that comes back takes its own place.
        assert "viewers" in pages.enter_context(websocket(port, "/state?sid=0")).recv()


@pytest.mark.parametrize("said", [b"", b"GET / HTT", b"upgrade"])
def test_a_thousand_silent_visitors_keep_nobody_out(page, port, said):
    threads = threading.active_count()
    said = upgrade(port, "/ui?sid=a") if said == b"upgrade" else said
    with contextlib.ExitStack() as crowd:
        for _ in range(1000):
            visitor = crowd.enter_context(socket.create_connection(("127.0.0.1", port)))
            visitor.sendall(said)
        assert is_served(port)
        assert threading.active_count() == threads
        assert len(page._studio._server._waiting) <= server.MAX_WAITING
    patient(lambda: not page._studio._server._waiting, "an empty lobby")


def test_visitors_who_take_nothing_or_say_nothing_are_left(page, port, monkeypatch):
    monkeypatch.setattr(wire, "HEAD_S", 0.2)
    monkeypatch.setattr(wire, "PIECE_S", 0.2)
    monkeypatch.setattr(wire, "SILENCE_S", 0.2)
    lobby, lines = page._studio._server._waiting, page._studio._server._lines
    with contextlib.ExitStack() as visitors:
        for said in (b"GET /", head(port, "/web_client.wasm"), upgrade(port, "/state?sid=a")):
            visitor = visitors.enter_context(socket.create_connection(("127.0.0.1", port)))
            visitor.sendall(said)
        patient(lambda: not lobby and not any(lines.values()), "their end")


def test_it_lives_on_when_handles_run_out(port):
    """Whoever comes then is let in once there are handles again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/dev/fd")))
    taken = []
    with socket.socket() as visitor, socket.socket() as other:
        visitor.settimeout(PATIENCE_S)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            visitor.connect(("127.0.0.1", port))
            visitor.sendall(head(port))
            other.connect(("127.0.0.1", port))
        finally:
            for handle in taken:
                os.close(handle)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert read_all(visitor).startswith(b"HTTP/1.1 200 OK\r\n")
    assert is_served(port)


def test_the_page_asks_for_the_token_on_every_path():
    shown = Program("envs", "point", "--view", "web", "--listen", "0.0.0.0")
    try:
        shown.wait_for(r"Open http\S+\?token=\S+\s")
        port, token = re.search(r":(\d+)/\?token=(\S+)", shown.text).groups()
        port = int(port)
        for path in ("/", "/model", "/web_client.js"):
            assert ask(port, head(port, path)).startswith(b"HTTP/1.1 403 ")
        with pytest.raises(InvalidStatus, match="403"):
            websocket(port, "/state?sid=a")
        assert ask(port, head(port, f"/?token={token}")).startswith(b"HTTP/1.1 303 ")
        cookie = f"demokit_token_{port}={token}"
        assert b" 200 OK" in ask(port, head(port, "/", f"Cookie: {cookie}"))
        with websocket(port, "/state?sid=a", additional_headers={"Cookie": cookie}) as line:
            assert "role=spectator" in line.recv()
    finally:
        shown.close()
