"""Reading files from web servers: whole, at a bearable speed, and never more than was asked for."""

from __future__ import annotations

import http.client
import io
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, cast

from demokit import __version__
from demokit.errors import DemokitError

SCHEMES = ("http://", "https://")
_WAIT_S = 30.0  # for each answer
_PATIENCE_S = 60.0  # after which a transfer has to be this fast
_LEAST_BYTES_PER_S = 1000.0
_MOST_REDIRECTIONS = 5
_PIECE_BYTES = 2**16


@dataclass
class WebStream:
    """A body that is read as a file is, from its start to its end.

    Attributes:
        response: the answer of the server.
        url: where the body comes from, for errors.
        expected: its length in bytes; None where the server does not say it.
    """

    response: _Answer
    url: str
    expected: int | None
    done: int = 0
    begun_s: float = field(default_factory=time.monotonic)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, or what is left.

        Raises:
            DemokitError: the server stops before the end, or is too slow to ever get there.
        """
        parts, left = [], size
        while left and (part := self.response.read1(min(left, _PIECE_BYTES))):
            parts.append(part)
            left -= len(part)
            self.done += len(part)
            self.response.patience.renew()
            self._check_speed()
        if left and self.expected is not None and self.done < self.expected:
            raise DemokitError(
                f"{self.url} ended after {self.done} of {self.expected} bytes: fetch it again."
            )
        return b"".join(parts)

    def _check_speed(self) -> None:
        taken_s = time.monotonic() - self.begun_s
        if taken_s > _PATIENCE_S and self.done < _LEAST_BYTES_PER_S * taken_s:
            raise DemokitError(
                f"{self.url} sent {self.done} bytes in {taken_s:.0f} s: try again later."
            )


@contextmanager
def fetch(url: str) -> Iterator[IO[bytes]]:
    """The body at an http or https address, see `WebStream`.

    Redirections are followed to such addresses only, and never from https to http.

    Raises:
        DemokitError: the server encodes the body, or does not say its length rightly.
        OSError, http.client.HTTPException: it cannot be reached, answers otherwise, or says much
            and sends nothing.
    """
    headers = {"User-Agent": f"demokit/{__version__}", "Accept-Encoding": "identity"}
    opener = urllib.request.build_opener(_Redirections, _Http, _Https)
    with opener.open(urllib.request.Request(url, headers=headers), timeout=_WAIT_S) as response:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise DemokitError(f"{url} comes encoded ({encoding}), which was not asked for.")
        yield cast("IO[bytes]", WebStream(response, url, response.length))


class _Patient(io.RawIOBase):
    """What a server says, until it has sent nothing of a body for `_PATIENCE_S`.

    Each answer may take `_WAIT_S`, but letters of a header, or the sizes of what never comes, would
    be answers for ever.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self.renew()

    def renew(self) -> None:
        """Something has come."""
        self._until_s = time.monotonic() + _PATIENCE_S

    def readable(self) -> bool:
        """See io."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """See io; raises TimeoutError where the patience is at its end."""
        if time.monotonic() > self._until_s:
            raise TimeoutError(f"it sent nothing of a file for {_PATIENCE_S:g} s: try again later")
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """See io."""
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """What is read with patience, but not for ever."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.patience = _Patient(self.fp.detach())
        self.fp = io.BufferedReader(self.patience)


class _Connection(http.client.HTTPConnection):
    response_class = _Answer


class _SafeConnection(http.client.HTTPSConnection):
    response_class = _Answer


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """See urllib."""
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """See urllib."""
        return self.do_open(_SafeConnection, req)


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows a few, on the web."""

    max_repeats = max_redirections = _MOST_REDIRECTIONS

    def redirect_request(self, req: urllib.request.Request, *answer: Any) -> Any:
        """The request for the new address, which is the last part of the answer."""
        allowed = SCHEMES[1:] if req.full_url.startswith(SCHEMES[1]) else SCHEMES
        if not str(answer[-1]).lower().startswith(allowed):
            raise DemokitError(f"{req.full_url} leads to {answer[-1]}: it is not followed.")
        return super().redirect_request(req, *answer)
