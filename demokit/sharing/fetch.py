"""Reading files from web servers: whole, at a bearable speed, and never more than was asked for."""

from __future__ import annotations

import http.client
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

    response: http.client.HTTPResponse
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
        OSError, http.client.HTTPException: it cannot be reached, or answers otherwise.
    """
    headers = {"User-Agent": f"demokit/{__version__}", "Accept-Encoding": "identity"}
    opener = urllib.request.build_opener(_Redirections)
    with opener.open(urllib.request.Request(url, headers=headers), timeout=_WAIT_S) as response:
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise DemokitError(f"{url} comes encoded ({encoding}), which was not asked for.")
        yield cast("IO[bytes]", WebStream(response, url, response.length))


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows a few, on the web."""

    max_repeats = max_redirections = _MOST_REDIRECTIONS

    def redirect_request(self, req: urllib.request.Request, *answer: Any) -> Any:
        """The request for the new address, which is the last part of the answer."""
        allowed = SCHEMES[1:] if req.full_url.startswith(SCHEMES[1]) else SCHEMES
        if not str(answer[-1]).lower().startswith(allowed):
            raise DemokitError(f"{req.full_url} leads to {answer[-1]}: it is not followed.")
        return super().redirect_request(req, *answer)
