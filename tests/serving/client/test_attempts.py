"""Deadlines and retries of both clients: which errors they raise, when, and after how many attempts."""

import pickle
import threading
import time

import grpc
import numpy as np
import pytest

from serving.client import ClientConfig, attempts
from serving.client.attempts import RetryThrottle
from serving.client.errors import (
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    RequestError,
    ServingError,
    UnavailableError,
)
from tests.serving.scripted_server import fail, images_of, predict_response, scripted_server

ONCE = ClientConfig(max_attempts=1)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("UNAVAILABLE", UnavailableError),
        ("NOT_FOUND", NotFoundError),
        ("INVALID_ARGUMENT", InvalidRequestError),
        ("FAILED_PRECONDITION", InvalidRequestError),
        ("DEADLINE_EXCEEDED", DeadlineError),
        ("INTERNAL", RequestError),
        ("RESOURCE_EXHAUSTED", RequestError),
        ("UNAUTHENTICATED", RequestError),
    ],
)
def test_an_error_keeps_the_servers_code_and_message(call, code, error):
    script = fail(grpc.StatusCode[code], "the server's own message")
    with scripted_server(predict=script) as target, pytest.raises(ServingError) as caught:
        call(target, "predict", images_of(1), config=ONCE)
    assert type(caught.value) is error
    assert (caught.value.code, caught.value.details, caught.value.target) == (code, "the server's own message", target)
    assert "the server's own message" in str(caught.value)
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_unavailable_is_retried_until_the_request_succeeds(call):
    script = fail(grpc.StatusCode.UNAVAILABLE, times=3)
    with scripted_server(predict=script) as target:
        assert call(target, "predict", images_of(6)).digit.tolist() == [6]
    assert script.calls == 4


def test_a_request_above_grpcs_default_retry_buffer_is_retried_too(call):
    script = fail(grpc.StatusCode.UNAVAILABLE, times=1)
    with scripted_server(predict=script) as target:
        config = ClientConfig(chunk_images=5000)
        predictions = call(target, "predict", np.zeros((5000, 28, 28), np.uint8), config=config)
    assert len(predictions) == 5000
    assert script.calls == 2


@pytest.mark.parametrize(("max_attempts", "sent"), [(1, 1), (3, 3)])
def test_unavailable_raises_after_the_last_attempt(call, max_attempts, sent):
    script = fail(grpc.StatusCode.UNAVAILABLE)
    with scripted_server(predict=script) as target, pytest.raises(UnavailableError):
        call(target, "predict", images_of(6), config=ClientConfig(max_attempts=max_attempts))
    assert script.calls == sent


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", "RESOURCE_EXHAUSTED"])
def test_an_error_that_a_retry_cannot_cure_is_not_retried(call, code):
    script = fail(grpc.StatusCode[code])
    with scripted_server(predict=script) as target, pytest.raises(RequestError):
        call(target, "predict", images_of(6))
    assert script.calls == 1


def test_a_server_that_never_responds_costs_only_the_deadline(call):
    wake = threading.Event()
    with scripted_server(predict=lambda request, _: wake.wait(60) and predict_response(request)) as target:
        begin = time.monotonic()
        with pytest.raises(DeadlineError):
            call(target, "predict", images_of(1), timeout_seconds=0.2)
        assert time.monotonic() - begin < 10
        wake.set()


def test_the_deadline_is_that_of_the_whole_call_however_many_requests_it_takes(call):
    def slow(request, _):
        time.sleep(0.1)
        return predict_response(request)

    with scripted_server(predict=slow) as target:
        settings = {"chunk_images": 1, "chunks_in_flight": 2, "timeout_seconds": 4}
        begin = time.monotonic()
        with pytest.raises(DeadlineError):
            call(target, "predict", np.zeros((400, 28, 28), np.uint8), **settings)  # 20 s
        assert 3.9 < time.monotonic() - begin < 10
        assert len(call(target, "predict", images_of(1, 2, 3), **settings)) == 3


def test_a_request_without_a_response_is_sent_again_within_its_time(call):
    received, wake = [], threading.Event()

    def ignore_the_first(request, _):
        received.append(request)
        if len(received) == 1:
            wake.wait(60)
        return predict_response(request)

    with scripted_server(predict=ignore_the_first) as target:
        assert call(target, "predict", images_of(6), timeout_seconds=6).digit.tolist() == [6]
        received.clear()
        assert call(target, "predict", images_of(6, 7), timeout_seconds=6, chunk_images=1).digit.tolist() == [6, 7]
        received.clear()
        with pytest.raises(DeadlineError):
            call(target, "predict", images_of(6), timeout_seconds=2, config=ONCE)
        assert len(received) == 1
        wake.set()


def test_retries_stop_while_most_attempts_fail():
    throttle = RetryThrottle()
    assert sum(throttle.record_failure() for _ in range(1000)) == 499
    for _ in range(200):
        throttle.record_response()
    assert not throttle.record_failure()
    for _ in range(2000):
        throttle.record_response()
    assert throttle.record_failure()


def test_a_deadline_that_ends_between_retries_keeps_the_servers_message(call, monkeypatch):
    monkeypatch.setattr(attempts, "FIRST_PAUSE_SECONDS", 1)
    monkeypatch.setattr(attempts, "LONGEST_PAUSE_SECONDS", 8)
    full = fail(grpc.StatusCode.UNAVAILABLE, "the queue is full")
    with scripted_server(predict=full) as target, pytest.raises(UnavailableError, match="the queue is full"):
        call(target, "predict", images_of(1), timeout_seconds=5)  # the third pause would end after it
    assert 2 <= full.calls <= 3
