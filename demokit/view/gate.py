"""Who gets in to the web page: its own pages only, and from elsewhere with a token only."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request

from demokit.errors import DemokitError
from demokit.view.wire import Answer

COOKIE = "demokit_token"
FIRST_PORT, NUM_PORTS = 8080, 100
NO_REQUEST = Answer(HTTPStatus.BAD_REQUEST, b"This is no request of a browser.")


class Gate:
    """Listens, and says who may pass.

    Reachable from elsewhere, it asks for a token, new for every gate: it comes in the address
    (`/?token=...`) and is then kept in a cookie. There is no encryption: use it in a network that
    is trusted, or through SSH.

    Args:
        listen: the address to listen on, such as "127.0.0.1".
        port: the port to listen on; 0 takes the first free one from 8080.

    Attributes:
        server: the socket that listens.
        token: what is asked for; None on loopback.
        address: what to open in the browser.

    Raises:
        DemokitError: it cannot listen there.
    """

    def __init__(self, listen: str, port: int) -> None:
        if not listen.strip():
            raise DemokitError("--listen is empty: name an address, such as 127.0.0.1.")
        self.token = None if is_loopback(listen) else secrets.token_urlsafe(16)
        self.server = _listening(listen, port)
        host = socket.gethostname() if listen in ("0.0.0.0", "::") else listen
        where = f"{f'[{host}]' if ':' in host else host}:{self.server.getsockname()[1]}"
        self.address = f"http://{where}/" + (f"?token={self.token}" if self.token else "")


def is_loopback(listen: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return listen == "localhost" or ipaddress.ip_address(listen).is_loopback
    except ValueError:
        return False


def _listening(listen: str, port: int) -> socket.socket:
    """A server on that port; for port 0 on the first free one; raises DemokitError."""
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    problem: OSError | None = None
    for candidate in [port] if port else range(FIRST_PORT, FIRST_PORT + NUM_PORTS):
        try:
            return socket.create_server((listen, candidate), family=family)
        except OSError as error:
            problem = error
            if error.errno != errno.EADDRINUSE:
                break
    why = str(problem.strerror).split(" (while")[0] if problem else ""
    raise DemokitError(
        f"Cannot listen on {listen} port {port or FIRST_PORT} ({why}): "
        "choose another --listen or --port."
    )


def check_request(request: Request, token: str | None) -> Answer | None:
    """None for a request that may pass; else what to answer.

    Browsers say for whom they ask: the page's own requests pass, those of other pages do not,
    whatever they ask for. Without a token, what was addressed to this machine passes: a name that
    was made to lead here does not, the other end of an SSH tunnel does, on any port. With one,
    what shows it in its cookie passes.

    Args:
        request: the request; its headers are those that a browser sends.
        token: the token of the gate, None on loopback.
    """
    headers = request.headers
    hosts, origins = headers.get_all("Host"), headers.get_all("Origin")
    if len(hosts) != 1 or len(origins) > 1 or not request.path.startswith("/"):
        return NO_REQUEST
    if getattr(request, "method", "GET") != "GET":  # older versions of websockets know no other
        return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "This page takes nothing.")
    if not _is_own(request, hosts[0], origins):
        return _refusal(HTTPStatus.FORBIDDEN, "Other pages may not use this one.")
    if token is None:
        here = is_loopback(_split("//" + hosts[0])[0])
        return None if here else _refusal(HTTPStatus.FORBIDDEN, "Open it by its address.")
    return _check_token(request, hosts[0], token)


def asks_for_websocket(headers: Headers) -> bool:
    """Whether the connection is to become a WebSocket."""
    return any("upgrade" in value.lower() for value in headers.get_all("Connection"))


def _is_own(request: Request, host: str, origins: list[str]) -> bool:
    """Whether it comes from a page of this server, or from the address line."""
    if origins:
        return origins[0].lower() in (f"http://{host}".lower(), f"https://{host}".lower())
    if asks_for_websocket(request.headers):
        return False  # every browser says here whose page it is
    if set(request.headers.get_all("Sec-Fetch-Site")) <= {"same-origin", "none"}:
        return True
    # A link to the page may stand anywhere; a frame, a picture or a script of it may not.
    is_link = request.headers.get_all("Sec-Fetch-Dest") == ["document"]
    return is_link and request.path.partition("?")[0] == "/"


def _check_token(request: Request, host: str, token: str) -> Answer | None:
    name = f"{COOKIE}_{_split('//' + host)[1]}"  # cookies do not tell ports apart
    shown = parse_qs(request.path.partition("?")[2]).get("token", [""])[0]
    if _same(shown, token):
        cookie = f"{name}={token}; HttpOnly; SameSite=Strict; Path=/"
        return Answer(HTTPStatus.SEE_OTHER, headers={"Location": "/", "Set-Cookie": cookie})
    cookies = ";".join(request.headers.get_all("Cookie")).split(";")
    if any(_same(cookie.strip(), f"{name}={token}") for cookie in cookies):
        return None
    words = "Open the address that the program printed, token included."
    return _refusal(HTTPStatus.FORBIDDEN, words)


def _split(address: str) -> tuple[str, int]:
    """Host and port; ("", 0) for nonsense."""
    try:
        parts = urlsplit(address)
        return parts.hostname or "", parts.port or 80
    except ValueError:
        return "", 0


def _same(shown: str, token: str) -> bool:
    return secrets.compare_digest(shown.encode(), token.encode())


def _refusal(status: HTTPStatus, words: str) -> Answer:
    return Answer(status, words.encode())
