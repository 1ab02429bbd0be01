"""Attacks on the page's server: slow headers, slow bodies, unread responses, many connections, few descriptors."""

import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

import benchmarks.page_under_attack as page_under_attack
import serving.web.app as app_module
import serving.web.limits as limits
from serving.client.config import ClientConfig
from serving.web.app import build_app
from serving.web.middleware import CONTENT_SECURITY_POLICY
from tests.serving.page_server import request, start_web
from tests.serving.scripted_server import scripted_server
from tests.waiting import wait_until

PNG = {"content-type": "image/png"}
HALF_SENT = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
UPLOAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000000\r\n\r\n"
ELSEWHERE = "127.0.0.2"


@contextlib.contextmanager
def page(target: str = "127.0.0.1:1") -> Iterator[tuple[uvicorn.Server, int]]:
    """Serve the page from this process, so that a test can set the limits; yield the server and its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = limits.build_server(build_app(target, ClientConfig(), min_confidence=0.5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield server, listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def connect(port: int, content: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(source, 0))
    connection.sendall(content)
    return connection


def wait_until_read(port: int) -> None:
    """Return when the server has read what was sent before, which decides since when a connection waits."""
    with connect(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", ELSEWHERE) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def is_closed(connection: socket.socket) -> bool:
    """Return whether the server closed the connection; drop what it sent before."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


def send_until_closed(connection: socket.socket, content: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(content)


def trickle_until_closed(connection: socket.socket, seconds: float = 20) -> bytes:
    """Send a byte every 20 ms until the server closes the connection, and return the response."""
    end, received = time.monotonic() + seconds, b""
    connection.settimeout(0.02)
    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            try:
                connection.sendall(b"a")
                if not (part := connection.recv(65536)):
                    return received
                received += part
            except ConnectionError:
                return received
    raise AssertionError(f"the connection is still open after {seconds} s")


@pytest.mark.parametrize("content", [b"", HALF_SENT])
def test_a_connection_without_complete_headers_is_closed(monkeypatch, content):
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.3)
    with page() as (_, port), connect(port, content) as connection:
        wait_until(lambda: is_closed(connection))


def test_headers_that_trickle_in_do_not_extend_the_deadline(monkeypatch):
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.3)
    with page() as (_, port), connect(port, HALF_SENT) as connection:
        assert trickle_until_closed(connection) == b""


def test_a_body_that_trickles_in_after_the_response_does_not_keep_the_connection(monkeypatch):
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.3)
    with page() as (_, port), connect(port, UPLOAD.replace(b"/predict", b"/healthz")) as connection:
        assert trickle_until_closed(connection).startswith(b"HTTP/1.1 405 ")


def test_a_peer_that_does_not_read_its_responses_is_disconnected(monkeypatch):
    monkeypatch.setattr(limits, "REQUEST_SECONDS", 0.5)
    with page() as (server, port), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        requests = b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000  # 5 MB of responses, again and again
        sender = threading.Thread(target=send_until_closed, args=(connection, requests), daemon=True)
        sender.start()
        sender.join(60)  # On a busy machine the first response may already be too late: that closes the connection too.
        assert not sender.is_alive()
        wait_until(lambda: not server.server_state.connections)


def test_an_upload_below_the_minimum_rate_is_rejected(monkeypatch):
    monkeypatch.setattr(app_module, "UPLOAD_GRACE_SECONDS", 0.3)
    with page() as (_, port), connect(port, UPLOAD) as connection:
        response = trickle_until_closed(connection)
        assert response.startswith(b"HTTP/1.1 408 ")
        assert b"The picture arrived too slowly." in response


def test_an_upload_at_the_minimum_rate_is_accepted(monkeypatch):
    monkeypatch.setattr(app_module, "UPLOAD_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(app_module, "MIN_BYTES_PER_SECOND", 1000)
    with scripted_server() as target, page(target) as (_, port), connect(port) as connection:
        connection.sendall(UPLOAD.replace(b"1000000", b"20000") + b"\x07" * 1000)
        for _ in range(19):
            time.sleep(0.05)  # 20 times the minimum, and longer than the grace period
            connection.sendall(b"\x07" * 1000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("content", [b"", HALF_SENT, UPLOAD])
def test_a_peer_with_too_many_connections_loses_the_one_that_waits_longest(monkeypatch, content):
    monkeypatch.setattr(limits, "MAX_PEER_CONNECTIONS", 4)
    with scripted_server() as target, page(target) as (_, port), contextlib.ExitStack() as stack:
        other = stack.enter_context(connect(port, content, ELSEWHERE))
        connections = [stack.enter_context(connect(port, content)) for _ in range(4)]
        wait_until_read(port)
        assert request(port, "POST", "/predict", b"\x07", PNG)[0] == 200
        wait_until(lambda: is_closed(connections[0]))
        assert not any(map(is_closed, [*connections[1:], other]))


def test_too_many_connections_of_all_peers_cost_the_one_that_waits_longest(monkeypatch):
    monkeypatch.setattr(limits, "MAX_CONNECTIONS", 4)
    with scripted_server() as target, page(target) as (_, port), contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(port, HALF_SENT, f"127.0.1.{number}")) for number in range(1, 6)]
        wait_until(lambda: is_closed(connections[0]))
        assert request(port, "POST", "/predict", b"\x07", PNG)[0] == 200
        wait_until(lambda: is_closed(connections[1]))
        assert not any(map(is_closed, connections[2:]))


@pytest.mark.parametrize("limit", ["MAX_CONNECTIONS", "MAX_PEER_CONNECTIONS"])
def test_a_request_beyond_the_limit_gets_503_while_all_others_are_pending(monkeypatch, limit):
    monkeypatch.setattr(limits, limit, 2)
    arrived, wake = threading.Semaphore(0), threading.Event()

    def stall(_, context):
        arrived.release()
        wake.wait(60)
        context.cancel()

    with scripted_server(predict=stall) as target, page(target) as (_, port), contextlib.ExitStack() as stack:
        stack.callback(wake.set)
        for _ in range(2):
            stack.enter_context(connect(port, UPLOAD.replace(b"1000000", b"1") + b"\x03"))
            assert arrived.acquire(timeout=60)
        for _ in range(2):
            status, headers, _ = request(port, "GET", "/")
            assert status == 503
            assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY


def test_connections_at_the_descriptor_limit_neither_stop_the_page_nor_flood_its_log(tmp_path):
    limited = tmp_path / "python"
    limited.write_text(f'#!/bin/sh\nulimit -n 100\nexec {sys.executable} "$@"\n')
    limited.chmod(0o755)
    with (
        scripted_server() as target,
        start_web(target, python=limited) as (process, port),
        contextlib.ExitStack() as stack,
    ):
        for number in range(300):
            source = f"127.0.1.{1 + number % 250}"
            with contextlib.suppress(ConnectionError):
                stack.enter_context(connect(port, HALF_SENT, source))
            if number % 50 == 0:
                assert request(port, "POST", "/predict", b"\x07", PNG)[0] == 200
        process.terminate()
        assert process.wait(60) == 0
        assert process.stderr
        assert len(process.stderr.readlines()) < 50


def test_a_repeated_message_is_logged_once_in_a_while_with_a_count(monkeypatch):
    def log_twice() -> list[str]:
        records = [logging.makeLogRecord({"msg": "of %s\n<socket %d>", "args": ("x", number)}) for number in range(2)]
        return [record.getMessage() for record in records if repeat_filter.filter(record)]

    repeat_filter = limits.RepeatFilter()
    assert log_twice() == ["of x\n<socket 0>"]
    monkeypatch.setattr(limits, "REPEAT_SECONDS", 0)
    assert log_twice()[0] == "of x\n<socket 0> (1 more since the last such message)"


@pytest.mark.parametrize(
    "content", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n"]
)
def test_malformed_requests_do_not_flood_the_log(content):
    with start_web("127.0.0.1:1") as (process, port):
        for _ in range(50):
            with connect(port, content) as connection:
                assert connection.recv(100)
        process.terminate()
        assert process.wait(60) == 0
        assert process.stderr
        assert len(process.stderr.readlines()) <= 2


@pytest.mark.slow
def test_an_honest_user_gets_every_answer_during_an_attack():
    with page_under_attack.page() as port, page_under_attack.attack(port, 900, page_under_attack.OTHER):
        answers = page_under_attack.draw(port, seconds=15)
    assert answers
    assert not any(answer.failed for answer in answers)
