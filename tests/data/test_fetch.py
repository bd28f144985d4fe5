"""Bundles on the web, from a server on loopback that keeps what it promises, or does not."""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner
from memory import growth
from program import DEMOKIT

from demokit.cli import main
from demokit.data import open_dataset
from demokit.data.share import make_bundle, pull
from demokit.errors import DemokitError
from demokit.sharing import fetch as fetching
from demokit.sharing.giving import pack, push


class Server(BaseHTTPRequestHandler):
    """Serves a folder; the first part of a path says how."""

    folder: Path

    def do_GET(self):
        how, _, name = self.path.lstrip("/").partition("/")
        path = self.folder / name
        if how != "endless" and not path.is_file():
            self.send_error(404, "not\x1b here")
            return
        getattr(self, f"send_{how}")(path.read_bytes() if path.is_file() else b"", name)

    def answer(self, data, length=None, status=200, **headers):
        self.send_response(status)
        if length is not False:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def send_whole(self, data, _):
        self.answer(data)

    def send_unsized(self, data, _):
        self.answer(data, False)

    def send_cut(self, data, name):
        self.answer(data[: len(data) // 2] if name.endswith(("hdf5", "zip")) else data, len(data))

    def send_longer(self, data, name):
        self.answer(data + b"more" if name.endswith("hdf5") else data, len(data) + 4)

    def send_shorter(self, data, _):
        self.answer(data, len(data) // 2)

    def send_moved(self, _, name):
        self.answer(b"", status=302, Location=f"/whole/{name}")

    def send_round(self, _, name):
        self.answer(b"", status=302, Location=f"/round/{name}")

    def send_away(self, _, name):
        self.answer(b"", status=302, Location=f"file://{self.folder}/{name}")

    def send_encoded(self, data, _):
        self.answer(data, Content_Encoding="gzip")

    def send_endless(self, data, name):
        if data and not name.endswith(("hdf5", "zip")):
            self.answer(data)
            return
        self.answer(b"", False)
        while True:
            self.wfile.write(bytes(2**16))

    def send_drip(self, _, __):
        self.answer(b"", False)
        while True:
            self.wfile.write(b"x")
            time.sleep(0.01)

    def send_promising(self, *_):
        """A header without end."""
        self.endlessly(b"HTTP/1.1 200 OK\r\nX: ", b"x")

    def send_continuing(self, *_):
        self.endlessly(b"", b"HTTP/1.1 100 Continue\r\n\r\n")

    def send_chunked(self, *_):
        """The size of a piece, with words behind it that never end."""
        self.endlessly(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x")

    def endlessly(self, first, then):
        self.wfile.write(first)
        while True:
            self.wfile.write(then)
            time.sleep(0.01)

    def handle(self):
        with suppress(ConnectionError):  # the client has had enough
            super().handle()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory, recorded) -> Iterator[str]:
    place = tmp_path_factory.mktemp("bundle")
    folder = place / "served"
    bundle = make_bundle(Path(shutil.copy(recorded, place / "a.hdf5")))
    push(bundle, str(folder))
    pack(bundle, folder / "a.zip")
    kind = type("Served", (Server,), {"folder": folder})
    served = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.mark.parametrize("how", ["whole", "unsized", "moved"])
@pytest.mark.parametrize("name", ["", "/", "/a.zip"])
def test_a_bundle_comes_whole(how, name, server, recorded, tmp_path):
    target = tmp_path / "new" / "b.hdf5"
    done = CliRunner().invoke(main, ["share", "pull", f"{server}/{how}{name}", "-o", str(target)])
    assert done.exit_code == 0, done.output
    assert target.read_bytes() == recorded.read_bytes()
    assert open_dataset(target).metadata.license == "MIT"
    assert sorted(p.name for p in target.parent.iterdir()) == ["b.hdf5", "b.md"]


BROKEN = {
    "cut": "ended after",
    "longer": "ended after|does not match its checksum",
    "shorter": "is no bundle|does not match its checksum|no archive",
    "round": "redirect",
    "away": "file:.*not allowed",
    "encoded": r"comes encoded \(gzip\)",
    "nowhere": "404|has no attribute",
}


@pytest.mark.parametrize(("how", "said"), BROKEN.items(), ids=BROKEN)
@pytest.mark.parametrize("name", ["", "/a.zip"])
def test_a_bundle_that_does_not_is_one_sentence(how, said, name, server, tmp_path):
    place = f"{server}/{'whole/none' if how == 'nowhere' else how}{name}"
    with pytest.raises(DemokitError, match=said) as caught:
        pull(place, tmp_path / "new" / "b.hdf5")
    assert str(caught.value).isprintable()
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("name", ["", "/a.zip", "/SHA256SUMS"])
def test_a_body_without_end_ends_at_the_limit(name, server, tmp_path):
    with growth() as grown, pytest.raises(DemokitError, match=r"--max-size|larger than any"):
        pull(f"{server}/endless{name}", tmp_path / "b.hdf5", limit_bytes=10**8)
    assert grown.kb < 50_000
    assert not list(tmp_path.glob("*b.hdf5*"))


def test_a_body_that_hardly_comes_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_PATIENCE_S", 0.5)
    with pytest.raises(DemokitError, match="try again later"):
        pull(f"{server}/drip", tmp_path / "b.hdf5")


@pytest.mark.parametrize("how", ["promising", "continuing", "chunked"])
@pytest.mark.parametrize("name", ["", "/a.zip"])
def test_words_without_a_body_are_given_up(how, name, server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_PATIENCE_S", 0.2)
    with pytest.raises(DemokitError, match=r"nothing of a file for 0\.2 s: try again later"):
        pull(f"{server}/{how}{name}", tmp_path / "b.hdf5")


def test_what_a_kill_leaves_goes_with_the_next_pull(server, tmp_path):
    target = tmp_path / "b.hdf5"
    command = [DEMOKIT, "share", "pull", f"{server}/drip/a.zip", "-o", target]
    with subprocess.Popen(command) as killed:
        while not list(tmp_path.glob("*.tmp")):
            assert killed.poll() is None
            time.sleep(0.05)
        killed.kill()
    pull(f"{server}/whole/a.zip", target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.hdf5", "b.md"]


def test_nobody_there_and_a_place_that_only_reads(recorded, tmp_path):
    with pytest.raises(DemokitError, match="refused"):
        pull("http://127.0.0.1:9/x", tmp_path / "b.hdf5")
    with pytest.raises(DemokitError, match="can only be read"):
        push(make_bundle(recorded), "http://127.0.0.1:9/x")


def test_https_never_leads_to_http():
    request = fetching.urllib.request.Request("https://example.org/a")
    for url, allowed in (("http://example.org/a", False), ("https://example.org/b", True)):
        follow = lambda url=url: fetching._Redirections().redirect_request(  # noqa: E731
            request, None, 302, "Found", {}, url
        )
        if allowed:
            assert follow().full_url == url
        else:
            with pytest.raises(DemokitError, match="not followed"):
                follow()


def test_pulling_from_the_web_needs_no_library(server, tmp_path, monkeypatch):
    for name in ("fsspec", "fsspec.core", "aiohttp", "requests"):
        monkeypatch.setitem(sys.modules, name, None)
    assert pull(f"{server}/whole", tmp_path / "b.hdf5").exists()


@pytest.mark.parametrize("name", ["SHA256SUMS", "README.md", "point.hdf5", "a.zip"])
def test_pipes_in_a_shared_folder_are_refused(name, recorded, tmp_path):
    path = tmp_path / "served" / name
    push(make_bundle(recorded), str(path.parent))
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    place = path if name == "a.zip" else path.parent
    with pytest.raises(DemokitError, match="no regular file"):
        pull(str(place), tmp_path / "b.hdf5")


def test_a_table_of_many_members_is_not_taken_in(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(40_000):
            archive.writestr(f"{i:050d}", b"")
    with pytest.raises(DemokitError, match="no archive"):
        pull(str(path), tmp_path / "b.hdf5")
