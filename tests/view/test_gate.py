"""Who gets in to the web page."""

import re
import socket
import urllib.error
import urllib.request

import pytest

from demokit.errors import DemokitError
from demokit.view.gate import Gate, check_request, is_loopback


def request(*headers, path="/"):
    return "\r\n".join([f"GET {path} HTTP/1.1", *headers, "", ""]).encode()


def test_loopback_is_told_from_what_others_reach():
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.3", "example.org", "")))


def test_on_loopback_only_its_own_names_pass():
    assert check_request(request("Host: localhost:8080"), None) is None
    assert check_request(request("Host: [::1]:8080"), None) is None
    assert b"403" in check_request(request("Host: evil.example:8080"), None)
    assert b"403" in check_request(request(), None)


def test_elsewhere_the_token_lets_in_and_nothing_else():
    host = "Host: box:8080"
    assert b"403" in check_request(request(host), "secret")
    assert b"403" in check_request(request(host, path="/?token=guess"), "secret")
    assert b"403" in check_request(request(host, "Cookie: demokit_token="), "secret")
    answer = check_request(request(host, path="/?token=secret"), "secret")
    assert b"303" in answer
    assert b"Set-Cookie: demokit_token=secret; HttpOnly; SameSite=Strict" in answer
    assert check_request(request(host, "Cookie: a=b; demokit_token=secret"), "secret") is None
    assert b"400" in check_request(b"nonsense", "secret")


def test_the_gate_relays_and_its_token_is_new_each_time():
    with socket.create_server(("127.0.0.1", 0)) as inside:
        gate = Gate("0.0.0.0", 0, inside.getsockname()[1])
        other = Gate("0.0.0.0", 0, inside.getsockname()[1])
        assert gate.token != other.token
        assert gate.token in gate.address
        port = re.search(r":(\d+)/", gate.address).group(1)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/")
        with socket.create_connection(("127.0.0.1", int(port))) as visitor:
            head = request("Host: box", f"Cookie: demokit_token={gate.token}", path="/ui?sid=1")
            visitor.sendall(head)
            room, _ = inside.accept()
            assert room.recv(4096) == head
            room.sendall(b"hello")
            assert visitor.recv(10) == b"hello"
            assert gate.driving == 1
            room.close()
        for each in (gate, other):
            each.close()


def test_a_taken_port_is_one_sentence():
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(DemokitError, match="Cannot listen on"),
    ):
        Gate("127.0.0.1", taken.getsockname()[1], 1)
