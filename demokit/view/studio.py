"""MuJoCo's page behind our gate: what stands in for the server of `mujoco.studio`.

The studio's own listens to everybody: it asks no page where it comes from, hands out the model,
takes files, and lets any page take the controls. This one speaks with the same page and no more:

    GET /, /assets/..., /model   the page with our panel, its parts, the model
    /ui                          what moves the page that drives: NetImgui's stream
    /state                       the simulation as it is now, and who drives
    /panel                       keys, buttons, words
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import stat
import threading
import zlib
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, unquote

from mujoco import studio

from demokit.view.gate import Gate
from demokit.view.panel import Panel, page_with_panel
from demokit.view.seat import RELOAD_S, Seat
from demokit.view.server import MAX_PAGES, Server
from demokit.view.wire import Answer, Line, first_to_end

TAKEN = 4001
PRESS_S, MESSAGE_S = 0.005, 0.001  # no person presses faster, no page draws faster
STUDIO_S = 10.0
GRANT_S = 5.0
IN_FLIGHT, ACKNOWLEDGE_S = 8, 2.0
CAMERA_BYTES, COMMAND_BYTES, PIECE_BYTES = 256, 4096, 65536
COMMANDS = (0, 2)  # NetImgui's version and input: fonts, clipboards and the like go the other way
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".ico": "image/x-icon",
}
NUMBER = re.compile("[0-9]{1,18}")
NOT_FOUND = Answer(HTTPStatus.NOT_FOUND, b"There is no such thing here.")


class Studio:
    """In place of the module `mujoco.studio.web.web_server`, and of its `WebServer`.

    The studio calls what has its names, from its own thread.

    Args:
        gate: listens, and says who may pass.
        panel: what the pages show and press.

    Attributes:
        started: set once pages are let in.
    """

    def __init__(self, gate: Gate, panel: Panel) -> None:
        self._gate, self._panel, self._seat = gate, panel, Seat()
        lines = {"/ui": self._serve_ui, "/state": self._serve_state, "/panel": self._serve_panel}
        self._server = Server(gate, self._answer, lines)
        self._inside = socket.create_server(("127.0.0.1", 0))
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._streamed = asyncio.Event()
        self._model, self._crc32 = b"", 0
        self._state = b""
        self._camera: bytes | None = None
        self._granted: str | None = None
        self.started = threading.Event()

    def bind_public_socket(self, _host: str, _port: int) -> socket.socket:
        """See `mujoco.studio`: by itself it listens on all interfaces."""
        return self._gate.server

    def bind_loopback_socket(self, _port: int) -> socket.socket:
        """See `mujoco.studio`: its own end of the stream connects there, and nobody else may."""
        return self._inside

    def WebServer(self, *, mjb_data: bytes, **_more: object) -> Studio:  # noqa: N802
        """See `mujoco.studio`."""
        self.update_model(mjb_data)
        return self

    def start(self) -> None:
        """See `mujoco.studio`."""
        self._server.start(self._inside, self._meet)
        self.started.set()

    def stop(self, reason: str = "") -> None:  # noqa: ARG002
        """See `mujoco.studio`; may be called twice."""
        self._server.stop()

    def update_model(self, mjb_data: bytes, crc32: int | None = None) -> None:
        """See `mujoco.studio`."""
        self._model, self._crc32 = mjb_data, zlib.crc32(mjb_data) if crc32 is None else crc32

    def update_state(self, payload: bytes) -> None:
        """See `mujoco.studio`: a page that is late sees the latest only."""
        self._state = payload
        self.tell()

    def take_client_camera(self) -> bytes | None:
        """See `mujoco.studio`: how the page that drives has turned the picture."""
        camera, self._camera = self._camera, None
        return camera

    def pop_theme(self) -> None:
        """See `mujoco.studio`: the colours stay."""

    def tell(self) -> None:
        """There may be something to tell the pages."""
        self._server.call(self._server.ring)

    def _answer(self, path: str, query: str) -> Answer:
        if path == "/model":
            return self._answer_model(parse_qs(query, keep_blank_values=True))
        body = _files().get(unquote(path))
        kind = KINDS.get(Path(path).suffix if path != "/" else ".html", "application/octet-stream")
        return NOT_FOUND if body is None else Answer(HTTPStatus.OK, body, kind)

    def _answer_model(self, query: Mapping[str, list[str]]) -> Answer:
        """The model, its size, or a part of it."""
        model, crc32 = self._model, str(self._crc32)
        if query.get("crc32", [crc32]) != [crc32]:
            return NOT_FOUND
        if "total_bytes" in query:
            total = json.dumps({"total_bytes": len(model)}).encode()
            return Answer(HTTPStatus.OK, total, "application/json")
        start, size = (query.get(f"{name}_bytes", [""])[0] for name in ("offset", "size"))
        if NUMBER.fullmatch(start) and NUMBER.fullmatch(size):
            model = model[int(start) :][: int(size)]
        return Answer(HTTPStatus.OK, model, "application/octet-stream")

    # The panel.

    async def _serve_panel(self, line: Line, page: str) -> None:
        self._panel.enter(page)
        try:
            await first_to_end(self._tell_panel(line, page), self._hear_panel(line, page))
        finally:
            if self._server.line("/panel", page) is line:
                self._panel.leave(page)

    async def _tell_panel(self, line: Line, page: str) -> None:
        told = ""
        with self._server.bell() as bell:
            while await bell.wait():
                bell.clear()
                if (text := self._panel.tell(page)) != told:
                    told = text
                    await line.send(text)

    async def _hear_panel(self, line: Line, page: str) -> None:
        while True:
            self._panel.hear(page, str(await line.receive()))
            await asyncio.sleep(PRESS_S)

    # The simulation, and who drives.

    async def _serve_state(self, line: Line, page: str) -> None:
        flow = _Flow()
        self._server.ring()
        try:
            await first_to_end(self._tell_state(line, page, flow), self._hear(line, page, flow))
        finally:
            if self._server.line("/state", page) is line:
                self._seat.forget(page)
            self._server.ring()

    async def _tell_state(self, line: Line, page: str, flow: _Flow) -> None:
        roster, state = "", b""
        with self._server.bell() as bell:
            while await bell.wait():
                bell.clear()
                if (text := self._roster(page)) != roster:
                    roster = text
                    await line.send(text)
                if page == self._granted:
                    self._granted = None
                    await line.send("grant")
                await flow.wait()
                if self._state is not state:
                    state = self._state
                    flow.sent()
                    await line.send(state)

    async def _hear(self, line: Line, page: str, flow: _Flow) -> None:
        """What a page says of itself; whatever else the studio would take is ignored.

        So no page takes the controls from another, whatever it says.
        """
        while True:
            message = await line.receive()
            if message == "state_ack":
                flow.acknowledged()
            elif message in ("request_control", "force_control"):
                self._seat.ask(page)
                self._grant()
                self._server.ring()
            elif message == "leave_queue":
                self._seat.forget(page)
                self._server.ring()
            elif isinstance(message, bytes) and page == self._seat.driver:
                self._camera = message[:CAMERA_BYTES]
            await asyncio.sleep(MESSAGE_S)

    def _roster(self, page: str) -> str:
        role = "controller" if page == self._seat.driver else "spectator"
        asking = self._seat.asking
        place = asking.index(page) + 1 if page in asking else 0
        return (
            f"viewers={self._server.pages('/state')};role={role};queue_pos={place};"
            f"queue_len={len(asking)};max_spectators={MAX_PAGES - 1}"
        )

    def _grant(self) -> None:
        """Tell who may drive now, if anybody; the page then comes, or it is the next one's turn."""
        self._granted = self._seat.next()
        if self._granted is not None:
            self._server.ring()
            asyncio.get_running_loop().call_later(GRANT_S, self._grant)

    # What moves the page that drives.

    async def _serve_ui(self, line: Line, page: str) -> None:
        if not self._seat.take(page):
            await line.close(TAKEN, "another page drives")
            return
        self._server.ring()
        try:
            await self._bridge(line, page)
        finally:
            if self._server.line("/ui", page) is line:
                self._seat.leave(page)
                self._panel.drive(None)
                asyncio.get_running_loop().call_later(RELOAD_S, self._grant)
            self._server.ring()

    async def _bridge(self, line: Line, page: str) -> None:
        """Lead a page to the studio, which begins anew with each: it connects again by itself."""
        self._streamed.clear()
        if self._stream is not None:
            self._stream[1].transport.abort()
            self._stream = None
        async with asyncio.timeout(STUDIO_S):
            await self._streamed.wait()
            begun = await line.receive()
        assert self._stream is not None
        reader, writer = self._stream
        try:
            await _pass_on(begun, writer)
            await first_to_end(_from_page(line, writer), self._to_page(reader, line, page))
        finally:
            writer.transport.abort()

    async def _to_page(self, reader: asyncio.StreamReader, line: Line, page: str) -> None:
        while data := await reader.read(PIECE_BYTES):
            await line.send(data)
            self._panel.drive(page)

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody connects to the inside; only the studio, in this process, has business there."""
        if not is_own(writer.get_extra_info("peername")):
            writer.transport.abort()
            return
        if self._stream is not None:
            self._stream[1].transport.abort()
        self._stream = reader, writer
        self._streamed.set()


async def _from_page(line: Line, writer: asyncio.StreamWriter) -> None:
    while True:
        await _pass_on(await line.receive(), writer)
        await asyncio.sleep(MESSAGE_S)


async def _pass_on(message: str | bytes, writer: asyncio.StreamWriter) -> None:
    if isinstance(message, bytes) and is_command(message):
        writer.write(message)
        await writer.drain()


def is_command(message: bytes) -> bool:
    """Whether it is one whole command of NetImgui that a page has reason to send."""
    size = int.from_bytes(message[:4], "little")
    return 8 <= size == len(message) <= COMMAND_BYTES and message[4] in COMMANDS


def is_own(address: tuple[str, int]) -> bool:
    """Whether the socket with that address is one of this process."""
    try:
        handles = list(map(int, os.listdir("/dev/fd")))
    except OSError:
        return False  # no handle is left to look with: it comes again
    return any(_address(handle) == address for handle in handles)


def _address(handle: int) -> object:
    """The address of a socket; None for what is none, or was closed meanwhile."""
    try:
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            return None
        mine = socket.socket(fileno=handle)
    except OSError:
        return None
    try:
        return mine.getsockname()
    except OSError:
        return None
    finally:
        mine.detach()


@cache
def _files() -> Mapping[str, bytes]:
    """What the page consists of, by path: it is there when handles run out."""
    home = Path(studio.__file__).parent
    found = {f"/{file.name}": file.read_bytes() for file in (home / "web" / "dist").iterdir()}
    assets = (home / "assets").iterdir()
    found.update({f"/assets/{file.name}": file.read_bytes() for file in assets if file.is_file()})
    found["/"] = page_with_panel(found.pop("/index.html").decode()).encode()
    return found


class _Flow:
    """How many states are on their way to a page, which acknowledges each that it has shown."""

    def __init__(self) -> None:
        self._number, self._room = 0, asyncio.Event()

    def sent(self) -> None:
        self._number += 1

    def acknowledged(self) -> None:
        self._number = max(0, self._number - 1)
        self._room.set()

    async def wait(self) -> None:
        """Until there is room for one more; a page that acknowledges none gets one now and then."""
        while self._number >= IN_FLIGHT:
            self._room.clear()
            try:
                async with asyncio.timeout(ACKNOWLEDGE_S):
                    await self._room.wait()
            except TimeoutError:
                self._number = 0
