"""The page's server as a process of its own, over plain HTTP: responses, rejections and attacks."""

import base64
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from serving.contract import MAX_PICTURE_BYTES
from serving.web.middleware import CONTENT_SECURITY_POLICY
from tests.serving.page_server import ROOT, error_of, request, start_web
from tests.serving.scripted_server import (
    NO_DIGIT,
    NOT_A_PICTURE,
    TWO_DIGITS,
    earlier_response,
    metadata_response,
    predict_response,
    scripted_server,
    status_response,
)
from tests.waiting import wait_until

NOWHERE = "127.0.0.1:1"
PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def port():
    """The port of a page whose model predicts a picture's first byte."""
    with (
        scripted_server(max_message_bytes=-1) as target,
        start_web(target, "--allowed-host", "Digits.example") as (_, port),
    ):
        yield port


@pytest.fixture(scope="module")
def port_without_model():
    with start_web(NOWHERE) as (_, port):
        yield port


def test_open_opens_the_page_in_the_browser(tmp_path, monkeypatch):
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.partial && mv {opened}.partial {opened}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    with start_web(NOWHERE, "--open") as (_, port):
        wait_until(opened.exists)
        assert opened.read_text().strip() == f"http://127.0.0.1:{port}"


def test_a_picture_gets_a_prediction_with_the_normalized_image(port):
    status, headers, body = request(port, "POST", "/predict", b"\x07 as it is", PNG)
    prediction = json.loads(body)
    assert status == 200
    assert (prediction["digit"], prediction["sure"], prediction["version"]) == (7, True, "1")
    assert prediction["confidence"] == pytest.approx(max(prediction["probabilities"]))
    assert base64.b64decode(prediction["normalized"]) == b"\x07" * 784
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("picture", "found", "sure"), [(NO_DIGIT, 0, False), (b"\x07", 1, True), (TWO_DIGITS, 2, False)]
)
def test_a_picture_of_no_digit_or_of_two_is_never_sure(port, picture, found, sure):
    prediction = json.loads(request(port, "POST", "/predict", picture, PNG)[2])
    assert (prediction["found"], prediction["sure"]) == (found, sure)


def test_a_prediction_below_min_confidence_is_not_sure():
    with scripted_server() as target, start_web(target, "--min-confidence", "0.92") as (_, port):
        assert json.loads(request(port, "POST", "/predict", b"\x07", PNG)[2])["sure"] is False


@pytest.mark.parametrize("path", ["/", "/page.js", "/icon.svg", "/healthz", "/missing", "/predict"])
def test_every_response_has_the_security_headers(port, path):
    _, headers, _ = request(port, "GET", path)
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "server" not in headers


def test_the_policy_allows_nothing_inline_and_nothing_from_other_sites():
    rules = dict(rule.split(" ", 1) for rule in CONTENT_SECURITY_POLICY.split("; "))
    assert rules.pop("default-src") == "'none'"
    assert set(rules.values()) <= {"'none'", "'self'", "'script'"}
    page = (ROOT / "serving" / "web" / "page" / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|https?:", page)


def test_only_the_pages_own_files_are_served(port):
    assert request(port, "GET", "/style.css")[1]["content-type"].startswith("text/css")
    for path in ("/app.py", "/../app.py", "/%2e%2e/app.py", "/page/index.html"):
        assert request(port, "GET", path)[0] == 404


def test_an_unchanged_file_is_not_sent_again(port):
    _, headers, _ = request(port, "GET", "/page.js")
    assert request(port, "GET", "/page.js", headers={"if-none-match": headers["etag"]})[0] == 304


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("127.0.0.1:1234", 200),
        ("[::1]:8080", 200),
        ("10.1.2.3:8080", 200),  # as in a kubelet's probes
        ("digits.example:8080", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("evil.example@localhost.evil.example", 421),
        ("digits.example.", 421),
        ("[", 421),
        ("", 421),
    ],
)
def test_only_known_host_names_are_served(port, host, status):
    assert request(port, "GET", "/", headers={"host": host})[0] == status
    assert request(port, "POST", "/predict", b"\x07", {"host": host, **PNG})[0] == status


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_content_types_that_a_form_on_another_site_can_send_are_rejected(port, content_type):
    assert error_of(request(port, "POST", "/predict", b"\x07", {"content-type": content_type}))[0] == 415


def test_the_largest_picture_is_accepted_and_one_byte_more_is_not(port):
    largest = b"\x05" * MAX_PICTURE_BYTES
    assert request(port, "POST", "/predict", largest, PNG)[0] == 200
    assert error_of(request(port, "POST", "/predict", largest + b"\x05", PNG)) == (
        413,
        "A picture may have at most 16 MiB.",
    )


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(1 + MAX_PICTURE_BYTES // 2**20):
            connection.sendall(b"100000\r\n" + bytes(2**20) + b"\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")  # and the body has not ended yet


@pytest.mark.parametrize("respond", [lambda request, _: predict_response(request), earlier_response])
def test_a_picture_that_the_model_cannot_use_gets_422_and_the_reason(respond):
    with scripted_server(predict=respond) as target, start_web(target) as (_, port):
        rejection = error_of(request(port, "POST", "/predict", NOT_A_PICTURE, PNG))
    assert rejection == (422, "The model cannot use this picture: it cannot be decoded; expected PNG.")


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("UNAVAILABLE", 503, "No model is being served"),
        ("NOT_FOUND", 503, "No model is being served"),
        ("DEADLINE_EXCEEDED", 503, "does not respond in time"),
        ("FAILED_PRECONDITION", 502, "The model server failed; the log of the page's server has the reason."),
        ("INTERNAL", 502, "The model server failed; the log of the page's server has the reason."),
    ],
)
def test_an_error_of_the_model_server_is_not_blamed_on_the_picture(code, status, message):
    def fail(_, context):
        context.abort(getattr(grpc.StatusCode, code), "no such signature")

    with scripted_server(predict=fail) as target, start_web(target) as (_, port):
        found, error = error_of(request(port, "POST", "/predict", b"\x07", PNG))
    assert (found, message in error) == (status, True)
    assert target not in error


def test_without_a_model_it_is_live_but_not_ready(port, port_without_model):
    assert request(port_without_model, "GET", "/healthz")[0] == 200
    assert error_of(request(port_without_model, "GET", "/readyz"))[0] == 503
    assert request(port_without_model, "GET", "/")[0] == 200
    status, _, body = request(port, "GET", "/readyz")
    assert (status, json.loads(body)) == (200, {"versions": ["1"]})


def test_it_is_not_ready_while_the_version_is_loading():
    with scripted_server(status=lambda *_: status_response((7, "LOADING"))) as target, start_web(target) as (_, port):
        assert error_of(request(port, "GET", "/readyz"))[0] == 503


def test_it_is_not_ready_without_the_label():
    def no_label(_, context):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Unrecognized servable version label: canary")

    with scripted_server(metadata=no_label) as target, start_web(target, "--label", "canary") as (_, port):
        assert error_of(request(port, "GET", "/readyz"))[0] == 503


def test_it_is_ready_with_the_version_of_the_label():
    labelled = scripted_server(metadata=lambda *_: metadata_response())
    with labelled as target, start_web(target, "--label", "stable") as (_, port):
        status, _, body = request(port, "GET", "/readyz")
    assert (status, json.loads(body)) == (200, {"versions": ["1"]})


def test_the_media_type_of_a_picture_may_be_in_capitals(port):
    assert request(port, "POST", "/predict", b"\x07", {"content-type": "IMAGE/PNG"})[0] == 200


def test_concurrent_requests_each_get_their_own_prediction(port):
    def digit_of(number: int) -> int:
        picture = bytes([number % 10]) * (1 + 1000 * number)
        return json.loads(request(port, "POST", "/predict", picture, PNG)[2])["digit"]

    with ThreadPoolExecutor(40) as pool:
        assert list(pool.map(digit_of, range(200))) == [number % 10 for number in range(200)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pending_request_finishes_after_a_signal(number):
    arrived = threading.Event()

    def slow(request, _):
        arrived.set()
        time.sleep(0.5)
        return predict_response(request)

    with scripted_server(predict=slow) as target, start_web(target) as (process, port), ThreadPoolExecutor(1) as pool:
        pending = pool.submit(request, port, "POST", "/predict", b"\x03", PNG)
        assert arrived.wait(60)
        process.send_signal(number)
        assert pending.result()[0] == 200
        assert process.wait(60) == 0
        assert process.stderr
        assert process.stderr.read() == ""


def test_a_disconnect_during_an_upload_is_not_logged_as_an_error():
    with start_web(NOWHERE) as (process, port):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n1234"
            )
        assert request(port, "GET", "/healthz")[0] == 200
        process.terminate()
        assert process.wait(60) == 0
        assert process.stderr
        assert process.stderr.read() == ""


def test_slow_uploads_do_not_keep_others_from_predictions(port):
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            slow.sendall(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n1234"
            )
        begin = time.monotonic()
        assert request(port, "POST", "/predict", b"\x07", PNG)[0] == 200
        assert time.monotonic() - begin < 5


def test_a_full_server_rejects_after_a_short_wait_and_recovers():
    wake = threading.Event()

    def stall(received, _):
        wake.wait(60)
        return predict_response(received)

    with scripted_server(predict=stall) as target, start_web(target) as (_, port), ThreadPoolExecutor(20) as pool:
        pending = [pool.submit(request, port, "POST", "/predict", b"\x03", PNG) for _ in range(20)]
        wait_until(lambda: sum(one.done() for one in pending) == 4)
        assert sorted(one.result()[0] for one in pending if one.done()) == [503] * 4
        wake.set()
        assert sorted(one.result()[0] for one in pending) == [200] * 16 + [503] * 4
        assert request(port, "POST", "/predict", b"\x03", PNG)[0] == 200


def test_a_port_in_use_is_named_and_returns_1():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = _run("web", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "error: cannot listen on 127.0.0.1 port" in done.stderr


def test_an_invalid_target_returns_2():
    done = _run("web", "--target", "http://localhost:8501")
    assert (done.returncode, "HOST:PORT" in done.stderr) == (2, True)


def test_its_requirements_are_the_clients_and_two_of_the_projects():
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    web = [name for name in dependencies if name.startswith(("starlette", "uvicorn"))]
    lines = (ROOT / "requirements" / "web.in").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["-r client.in", *web]


def _run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "serving", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
