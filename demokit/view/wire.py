"""One connection to a page: a request, then an answer or a WebSocket, bounded in size and time.

What is bounded: the head of a request and the time that it takes, a message, what waits to be
sent, and how long a peer may take nothing or say nothing. `websockets` keeps the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

HEAD_BYTES, HEAD_S = 16384, 10.0
MESSAGE_BYTES = 65536
PIECE_BYTES, PIECE_S = 65536, 20.0
SILENCE_S = 5.0
CLOSE_S = 2.0


class Gone(Exception):  # noqa: N818
    """The peer has left, or keeps to no protocol."""


class Answer(NamedTuple):
    """What is answered to a request."""

    status: HTTPStatus
    body: bytes = b""
    kind: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = {}


async def read_request(reader: asyncio.StreamReader, protocol: ServerProtocol) -> Request | None:
    """The request that a connection begins with; None where it is none, or too long.

    Args:
        reader: the connection, whose limit is HEAD_BYTES.
        protocol: goes on with the connection if it becomes a WebSocket.

    Raises:
        Gone: the peer left.
        OSError: the peer left, or took more than HEAD_S.
    """
    try:
        async with asyncio.timeout(HEAD_S):
            protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.IncompleteReadError as error:
        raise Gone from error
    except asyncio.LimitOverrunError:
        return None
    return next((e for e in protocol.events_received() if isinstance(e, Request)), None)


async def send_answer(
    writer: asyncio.StreamWriter, answer: Answer, always: Mapping[str, str]
) -> None:
    """Send an answer, with some headers that it always has, and end the connection.

    Raises:
        OSError: the peer takes nothing for PIECE_S.
    """
    headers = {
        "Content-Type": answer.kind,
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
        **always,
        **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    await _send(writer, "\r\n".join([*lines, "", ""]).encode("latin-1"))
    for start in range(0, len(answer.body), PIECE_BYTES):
        await _send(writer, answer.body[start : start + PIECE_BYTES])
    writer.close()
    async with asyncio.timeout(PIECE_S):
        await writer.wait_closed()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    async with asyncio.timeout(PIECE_S):
        await writer.drain()


def drop(writer: asyncio.StreamWriter) -> None:
    """End a connection at once, whatever became of it."""
    with contextlib.suppress(AttributeError):  # Python 3.11: it has ended, and its loop is gone
        writer.transport.abort()


class Line:
    """A WebSocket, once its request is accepted; `send` and `receive` raise OSError or Gone."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: ServerProtocol
    ) -> None:
        self._reader, self._writer, self._protocol = reader, writer, protocol
        self._ready: deque[str | bytes] = deque()
        self._kind, self._begun = Opcode.TEXT, bytearray()

    async def accept(self, request: Request, always: Mapping[str, str]) -> None:
        """Answer the request; raises Gone where it asks for no WebSocket."""
        response = self._protocol.accept(request)
        response.headers.update(always)
        self._protocol.send_response(response)
        await self._flush()
        if self._protocol.state is not State.OPEN:
            raise Gone

    async def receive(self) -> str | bytes:
        """The next message.

        A peer that says nothing is pinged: its network answers for it, however busy its page is.
        """
        asked = False
        while not self._ready:
            try:
                async with asyncio.timeout(SILENCE_S):
                    data = await self._reader.read(PIECE_BYTES)
            except TimeoutError:
                if asked:
                    raise Gone from None
                asked = True
                self._protocol.send_ping(b"")
                await self._flush()
                continue
            asked = False
            await self._hear(data)
        return self._ready.popleft()

    async def _hear(self, data: bytes) -> None:
        if not data:
            raise Gone
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
                self._put_together(event)
        await self._flush()
        if self._protocol.state is not State.OPEN:
            raise Gone

    def _put_together(self, frame: Frame) -> None:
        """Messages may come in fragments, of any number: empty ones must cost nothing."""
        if frame.opcode is not Opcode.CONT:
            self._kind, self._begun = frame.opcode, bytearray()
        self._begun += frame.data
        if frame.fin:
            whole, self._begun = bytes(self._begun), bytearray()
            self._ready.append(_text(whole) if self._kind is Opcode.TEXT else whole)

    async def send(self, message: str | bytes) -> None:
        """Send a message; waits while the peer takes none."""
        if self._protocol.state is not State.OPEN:
            raise Gone
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        await self._flush()

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, and wait a moment for the peer to do so."""
        self._protocol.fail(code, reason)
        with contextlib.suppress(OSError, Gone):
            async with asyncio.timeout(CLOSE_S):
                await self._flush()
                while await self._reader.read(PIECE_BYTES):
                    pass

    def drop(self) -> None:
        """End it at once."""
        drop(self._writer)

    async def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._writer.write(data)
            else:
                self._writer.write_eof()
        async with asyncio.timeout(PIECE_S):
            await self._writer.drain()


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Gone from error


async def first_to_end(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run them together until one ends; the others are cancelled, an error goes on."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
