"""Who gets in to the web page."""

import socket

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from demokit.errors import DemokitError
from demokit.view.gate import Gate, check_request, is_loopback

UPGRADE = ("Connection", "Upgrade"), ("Upgrade", "websocket")


def status(*headers, path="/", token=None):
    """What a request is answered; None where it passes."""
    answer = check_request(Request(path, Headers(headers)), token)
    return None if answer is None else answer.status


def test_loopback_is_told_from_what_others_reach():
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.3", "example.org", "")))


def test_on_loopback_only_its_own_names_pass():
    """On any port: the other end of an SSH tunnel has one of its own."""
    for host in ("localhost:8080", "[::1]:8080", "127.0.0.1:9999", "localhost"):
        assert status(("Host", host)) is None
        assert status(("Host", host), ("Origin", f"http://{host}"), *UPGRADE) is None
    for host in ("evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "[", ""):
        assert status(("Host", host)) == 403
        assert status(("Host", host), ("Origin", f"http://{host}"), *UPGRADE) == 403
    assert status() == 400
    assert status(("Host", "localhost"), ("Host", "evil.example")) == 400
    assert status(("Host", "localhost"), path="http://localhost/") == 400


@pytest.mark.parametrize("path", ["/", "/model", "/ui?sid=a", "/state?sid=a", "/drop", "/x"])
@pytest.mark.parametrize("token", [None, "secret"])
def test_no_other_page_passes(path, token):
    here = ("Host", "localhost:8080"), ("Cookie", "demokit_token_8080=secret")
    others = (
        *("http://evil.example", "http://localhost:9999", "http://127.0.0.1:8080", "null", ""),
        *("http://localhost", "http://localhost:8080.evil.example", "ftp://localhost:8080"),
    )
    for origin in others:
        assert status(*here, ("Origin", origin), path=path, token=token) == 403
        assert status(*here, ("Origin", origin), *UPGRADE, path=path, token=token) == 403
    own = ("Origin", "http://localhost:8080")
    assert status(*here, own, path=path, token=token) is None
    assert status(*here, own, *UPGRADE, path=path, token=token) is None
    assert status(*here, own, own, path=path, token=token) == 400
    # A browser says for every WebSocket whose page asks.
    assert status(*here, *UPGRADE, path=path, token=token) == 403


def test_pictures_frames_and_scripts_of_other_pages_do_not_pass():
    """They have no Origin; browsers say otherwise where they come from."""
    here = ("Host", "localhost:8080")
    for site in ("cross-site", "same-site"):  # the same site has other ports
        for path in ("/", "/model", "/web_client.js"):
            assert status(here, ("Sec-Fetch-Site", site), path=path) == 403
            frame = ("Sec-Fetch-Dest", "iframe")
            assert status(here, ("Sec-Fetch-Site", site), frame, path=path) == 403
        link = ("Sec-Fetch-Site", site), ("Sec-Fetch-Dest", "document")
        assert status(here, *link) is None
        assert status(here, *link, path="/model") == 403
    assert status(here, ("Sec-Fetch-Site", "same-origin"), path="/model") is None
    assert status(here, ("Sec-Fetch-Site", "none")) is None


def test_elsewhere_the_token_lets_in_and_nothing_else():
    host = ("Host", "box:8080")
    assert status(host, token="secret") == 403
    for path in ("/?token=guess", "/?token=", "/?token=%ff"):
        assert status(host, path=path, token="secret") == 403
    for cookie in ("demokit_token_8080=", "demokit_token_9090=secret", "secret"):
        assert status(host, ("Cookie", cookie), token="secret") == 403
    answer = check_request(Request("/?token=secret", Headers([host])), "secret")
    assert answer.status == 303
    assert answer.headers["Location"] == "/"
    cookie = answer.headers["Set-Cookie"]
    assert cookie == "demokit_token_8080=secret; HttpOnly; SameSite=Strict; Path=/"
    for cookie in ("demokit_token_8080=secret", 'odd="[};a=b; demokit_token_8080=secret'):
        assert status(host, ("Cookie", cookie), token="secret") is None


def test_the_token_is_new_each_time():
    gates = [Gate("0.0.0.0", 0) for _ in range(2)]
    assert gates[0].token != gates[1].token
    for gate in gates:
        assert gate.address.endswith(f":{gate.server.getsockname()[1]}/?token={gate.token}")
        gate.server.close()


@pytest.mark.parametrize("listen", ["", " "])
def test_no_address_is_not_every_address(listen):
    with pytest.raises(DemokitError, match="--listen is empty"):
        Gate(listen, 0)


def test_a_taken_port_is_one_sentence():
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(DemokitError, match="Cannot listen on"),
    ):
        Gate("127.0.0.1", taken.getsockname()[1])
