"""A server for one page in one thread: bounded, and alive whatever its visitors do."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from websockets.http11 import Request
from websockets.server import ServerProtocol

from demokit.view.gate import NO_REQUEST, Gate, asks_for_websocket, check_request
from demokit.view.wire import (
    HEAD_BYTES,
    MESSAGE_BYTES,
    Answer,
    Gone,
    Line,
    drop,
    read_request,
    send_answer,
)

MAX_WAITING, MAX_PAGES = 48, 9
STOP_S = 5.0
FULL = 4002
HEADERS = {
    # The page computes in threads, which browsers allow to isolated pages only.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_PAGE = re.compile(r"sid=([0-9A-Za-z]{1,64})")


class Server:
    """Serves those that the gate lets in.

    Each page in a browser has a name of its own, the `sid` in its requests for WebSockets. At most
    MAX_WAITING connections are open beside those: where more come, the oldest end.

    Args:
        gate: listens, and says who may pass.
        answer: answers the request for a path and its query.
        lines: path -> serves a WebSocket of a page until it ends.
    """

    def __init__(
        self,
        gate: Gate,
        answer: Callable[[str, str], Answer],
        lines: Mapping[str, Callable[[Line, str], Awaitable[None]]],
    ) -> None:
        self._gate, self._answer, self._serve = gate, answer, lines
        self._lines: dict[str, dict[str, Line]] = {path: {} for path in lines}
        self._waiting: dict[asyncio.StreamWriter, None] = {}
        self._bells: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._begun, self._end = threading.Event(), asyncio.Event()

    def start(self) -> None:
        """Let visitors in."""
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),), daemon=True)
        self._thread.start()
        self._begun.wait()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_be_quiet_about_handles)
        await asyncio.start_server(self._welcome, sock=self._gate.server, limit=HEAD_BYTES)
        self._begun.set()
        await self._end.wait()

    def stop(self) -> None:
        """Let nobody in any more, and end all connections; may be called twice."""
        self.call(self._end.set)
        if self._thread is not None:
            self._thread.join(STOP_S)
        self._gate.server.close()

    def call(self, act: Callable[[], object]) -> None:
        """Have something done in the thread of the server."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(act)

    def ring(self) -> None:
        """Wake all that have a bell."""
        for bell in self._bells:
            bell.set()

    @contextlib.contextmanager
    def bell(self) -> Iterator[asyncio.Event]:
        """Rings when there may be something to tell, and at first."""
        bell = asyncio.Event()
        bell.set()
        self._bells.add(bell)
        try:
            yield bell
        finally:
            self._bells.discard(bell)

    def line(self, path: str, page: str) -> Line | None:
        """The WebSocket of a page, if it has that one."""
        return self._lines[path].get(page)

    def pages(self, path: str) -> int:
        """How many pages have that WebSocket."""
        return len(self._lines[path])

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._waiting[writer] = None
        if len(self._waiting) > MAX_WAITING:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            drop(oldest)
        try:
            protocol = ServerProtocol(max_size=MESSAGE_BYTES)
            request = await read_request(reader, protocol)
            if request is None:
                await send_answer(writer, NO_REQUEST, HEADERS)
            elif answer := check_request(request, self._gate.token) or self._found(request):
                await send_answer(writer, answer, HEADERS)
            else:
                await self._connect(Line(reader, writer, protocol), request, writer)
        except (OSError, Gone, asyncio.CancelledError):
            pass  # it has left, or the server ends
        finally:
            self._waiting.pop(writer, None)
            drop(writer)

    def _found(self, request: Request) -> Answer | None:
        """What is at the path of a request; None for the WebSocket of a page."""
        path, _, query = request.path.partition("?")
        if path not in self._lines:
            return self._answer(path, query)
        if not asks_for_websocket(request.headers):
            words, upgrade = b"This is no page.", {"Upgrade": "websocket"}
            return Answer(HTTPStatus.UPGRADE_REQUIRED, words, headers=upgrade)
        if not _PAGE.fullmatch(query):
            return Answer(HTTPStatus.BAD_REQUEST, b"This is no page of this server.")
        return None

    async def _connect(self, line: Line, request: Request, writer: Any) -> None:
        """Serve the WebSocket of a page; one that the page had before gives way to it."""
        path, _, query = request.path.partition("?")
        page, lines = query.removeprefix("sid="), self._lines[path]
        await line.accept(request, HEADERS)
        if page not in lines and len(lines) >= MAX_PAGES:
            await line.close(FULL, "too many pages")
            return
        self._waiting.pop(writer, None)
        if (earlier := lines.get(page)) is not None:
            earlier.drop()
        lines[page] = line
        try:
            await self._serve[path](line, page)
        finally:
            if lines.get(page) is line:
                del lines[page]


def _be_quiet_about_handles(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Where handles run out, asyncio waits for better times by itself, and need not shout."""
    if not isinstance(context.get("exception"), OSError):
        loop.default_exception_handler(context)
