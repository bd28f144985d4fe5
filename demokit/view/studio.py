"""What MuJoCo's page in a browser asks for, and no more than it needs.

The page is `mujoco.studio`'s; the server is ours. The studio's own listens to everybody: it asks no
page where it comes from, takes files, and lets any page take the controls. It also draws an
interface for the page that drives, in native code that a page which comes and goes can crash; our
panel needs none, so that page is greeted, and drawn nothing.

    GET /, /assets/..., /model   the page with our panel, its parts, the model
    /ui                          open for the page that drives, as long as it does
    /state                       the simulation as it is now, and who drives
    /panel                       keys, buttons, words
"""

from __future__ import annotations

import asyncio
import json
import re
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
GREETING_S, GRANT_S = 60.0, 5.0  # a page greets when it first draws: late on a busy machine
IN_FLIGHT, ACKNOWLEDGE_S = 8, 2.0
CAMERA_BYTES = 256
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".ico": "image/x-icon",
}
NUMBER = re.compile("[0-9]{1,18}")
NOT_FOUND = Answer(HTTPStatus.NOT_FOUND, b"There is no such thing here.")


class Studio:
    """Serves one simulation to MuJoCo's page, in as many browsers as there is room for.

    Args:
        gate: listens, and says who may pass.
        panel: what the pages show and press.
        model: the model, as the page reads it.

    Attributes:
        crc32: the checksum of the model, which each state names.
    """

    def __init__(self, gate: Gate, panel: Panel, model: bytes) -> None:
        self._panel, self._seat = panel, Seat()
        self._model, self.crc32 = model, zlib.crc32(model)
        self._state: bytes | None = None
        self._camera: bytes | None = None
        self._granted: str | None = None
        lines = {"/ui": self._serve_ui, "/state": self._serve_state, "/panel": self._serve_panel}
        self._server = Server(gate, self._answer, lines)
        self._server.start()

    def close(self) -> None:
        """Let nobody in any more."""
        self._server.stop()

    def show(self, state: bytes) -> None:
        """The simulation as it is now; a page that is late sees the latest only."""
        self._state = state
        self.tell()

    def tell(self) -> None:
        """There may be something to tell the pages."""
        self._server.call(self._server.ring)

    def take_camera(self) -> bytes | None:
        """How the page that drives has turned the picture, if it did since it was asked last."""
        camera, self._camera = self._camera, None
        return camera

    def _answer(self, path: str, query: str) -> Answer:
        if path == "/model":
            return self._answer_model(parse_qs(query, keep_blank_values=True))
        body = _files().get(unquote(path))
        kind = KINDS.get(Path(path).suffix if path != "/" else ".html", "application/octet-stream")
        return NOT_FOUND if body is None else Answer(HTTPStatus.OK, body, kind)

    def _answer_model(self, query: Mapping[str, list[str]]) -> Answer:
        """The model, its size, or a part of it."""
        model, crc32 = self._model, str(self.crc32)
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
        roster, state = "", None
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
                if (latest := self._state) is not None and latest is not state:
                    state = latest
                    flow.sent()
                    await line.send(latest)

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

    # Whose page drives.

    async def _serve_ui(self, line: Line, page: str) -> None:
        if not self._seat.take(page):
            await line.close(TAKEN, "another page drives")
            return
        self._server.ring()
        try:
            await self._greet(line)
            self._panel.drive(page)
            self._server.ring()
            while await line.receive():
                await asyncio.sleep(MESSAGE_S)
        finally:
            if self._server.line("/ui", page) is line:
                self._seat.leave(page)
                self._panel.drive(None)
                asyncio.get_running_loop().call_later(RELOAD_S, self._grant)
            self._server.ring()

    async def _greet(self, line: Line) -> None:
        """The page says its version of NetImgui, and wants to hear the same."""
        async with asyncio.timeout(GREETING_S):
            await line.send(await line.receive())


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
