"""A gate before the web page: knows who is there, and lets others in with a token only."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import secrets
import socket
import threading
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from demokit.errors import DemokitError

COOKIE = "demokit_token"
DRIVING_PATH = "/ui"
FIRST_PORT, NUM_PORTS = 8080, 100
HEAD_BYTES = 16384
HEAD_PATIENCE_S = 10.0


class Gate:
    """Relays connections to a port of this machine.

    Reachable from elsewhere, it asks for a token, new for every gate: it comes in the address
    (`/?token=...`) and is then kept in a cookie. The page behind has no encryption: use it in a
    network that is trusted, or through SSH.

    Args:
        listen: the address to listen on, such as "127.0.0.1".
        port: the port to listen on; 0 takes the first free one from 8080.
        inside: the port on loopback that it leads to.

    Attributes:
        address: what to open in the browser.
        driving: how many browsers are connected so that they can drive.

    Raises:
        DemokitError: it cannot listen there.
    """

    def __init__(self, listen: str, port: int, inside: int) -> None:
        self.token = None if is_loopback(listen) else secrets.token_urlsafe(16)
        self.driving = 0
        self._count = threading.Lock()
        self._inside = inside
        self._server = _listening(listen, port)
        host = socket.gethostname() if listen in ("0.0.0.0", "::") else listen
        where = f"{f'[{host}]' if ':' in host else host}:{self._server.getsockname()[1]}"
        self.address = f"http://{where}/" + (f"?token={self.token}" if self.token else "")
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Let nobody in any more."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                visitor, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(visitor,), daemon=True).start()

    def _greet(self, visitor: socket.socket) -> None:
        with visitor, contextlib.suppress(OSError):
            visitor.settimeout(HEAD_PATIENCE_S)
            head = _read_head(visitor)
            answer = check_request(head, self.token)
            if answer is not None:
                visitor.sendall(answer)
                return
            visitor.settimeout(None)
            drives = head.split(b" ", 2)[1].startswith(DRIVING_PATH.encode())
            with socket.create_connection(("127.0.0.1", self._inside)) as room:
                self._counted(drives)
                room.sendall(head)
                threading.Thread(target=_relay, args=(room, visitor), daemon=True).start()
                _relay(visitor, room)
                self._counted(-drives)

    def _counted(self, change: int) -> None:
        with self._count:
            self.driving += change


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


def check_request(head: bytes, token: str | None) -> bytes | None:
    """None for a request that may pass; else what to answer.

    Without a token, what was addressed to this machine passes: a page from elsewhere, whose name
    was made to lead here, does not. With one, what shows it in its cookie passes.

    Args:
        head: the request up to its empty line.
        token: the token of the gate, None on loopback.
    """
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3:
        return _answer("400 Bad Request", "This is no request for a page.")
    if token is None:
        host = urlsplit("//" + _header(lines, "host")).hostname or ""
        return None if is_loopback(host) else _answer("403 Forbidden", "Open it by its address.")
    shown = parse_qs(urlsplit(words[1]).query).get("token", [""])[0]
    if _same(shown, token):
        cookie = f"Set-Cookie: {COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/"
        return _answer("303 See Other", "", f"Location: /\r\n{cookie}\r\n")
    pairs = [pair.strip().partition("=") for pair in _header(lines, "cookie").split(";")]
    if any(name == COOKIE and _same(value, token) for name, _, value in pairs):
        return None
    return _answer("403 Forbidden", "Open the address that the program printed, token included.")


def _header(lines: Sequence[str], name: str) -> str:
    found = (line.partition(":")[2] for line in lines[1:] if line.lower().startswith(name + ":"))
    return next(found, "").strip()


def _same(shown: str, token: str) -> bool:
    return secrets.compare_digest(shown.encode(), token.encode())


def _answer(status: str, text: str, headers: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\n{headers}Content-Type: text/plain\r\n"
        f"Content-Length: {len(text.encode())}\r\nConnection: close\r\n\r\n{text}"
    ).encode()


def _read_head(visitor: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES:
        more = visitor.recv(4096)
        if not more:
            break
        head += more
    return head


def _relay(source: socket.socket, target: socket.socket) -> None:
    """Copy until either side ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
