"""Both clients wait until a version is AVAILABLE, and say whether a server is live and ready."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from serving.client.errors import NotReadyError, RequestError
from tests.ports import free_port
from tests.serving.scripted_server import (
    fail,
    metadata_response,
    scripted_server,
    status_response,
)


def test_is_live_and_is_ready(call):
    with scripted_server(metadata=lambda *_: metadata_response()) as target:
        assert call(target, "is_live")
        assert call(target, "is_ready")
    missing = fail(grpc.StatusCode.NOT_FOUND, "no model")
    with scripted_server(status=missing, metadata=missing) as target:
        assert call(target, "is_live")
        assert not call(target, "is_ready")
    assert not call("127.0.0.1:1", "is_live")
    assert not call("127.0.0.1:1", "is_ready")


def test_wait_continues_while_the_server_is_starting(call):
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(call, f"127.0.0.1:{port}", "wait_until_available", timeout_seconds=60)
        time.sleep(0.5)
        assert not found.done()
        with scripted_server(status=lambda *_: status_response((3, "LOADING"), (2, "AVAILABLE")), port=port):
            assert found.result() == 2


def test_wait_for_a_version_continues_after_not_found_and_loading(call):
    states, requested = iter([None, "START", "LOADING", "AVAILABLE"]), []

    def status(request, context):
        requested.append(request.model_spec.version.value)
        if (state := next(states)) is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such version")
        return status_response((7, state))

    with scripted_server(status=status) as target:
        assert call(target, "wait_until_available", 7) == 7
    assert requested == [7, 7, 7, 7]


def test_wait_that_times_out_reports_the_last_state(call):
    message = r"version 7 was not AVAILABLE within 2 s; last seen: version 7 LOADING"
    loading = scripted_server(status=lambda *_: status_response((7, "LOADING")))
    with loading as target, pytest.raises(NotReadyError, match=message):
        call(target, "wait_until_available", 7, timeout_seconds=2)


def test_wait_ends_at_once_if_the_version_failed_to_load(call):
    failed = status_response((7, "END"), error_code=3, error_message="Could not find variable")
    message = r"version 7 could not be loaded.*INVALID_ARGUMENT: Could not find"
    with scripted_server(status=lambda *_: failed) as target, pytest.raises(NotReadyError, match=message):
        call(target, "wait_until_available", 7)


def test_wait_reports_why_no_version_could_be_loaded(call):
    failed = status_response((7, "END"), error_code=3, error_message="Could not find variable")
    message = r"last seen: version 7 END \(INVALID_ARGUMENT: Could not find variable\)"
    with scripted_server(status=lambda *_: failed) as target, pytest.raises(NotReadyError, match=message):
        call(target, "wait_until_available", timeout_seconds=2)


def test_wait_ends_at_once_for_an_error_that_waiting_cannot_change(call):
    reject = fail(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
    with scripted_server(status=reject) as target, pytest.raises(RequestError, match="UNAUTHENTICATED"):
        call(target, "wait_until_available")
