"""Both clients against servers on loopback: answers, chunks, retries, deadlines, errors, waiting."""

import asyncio
import itertools
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from serving.client import AsyncDigitClient, ClientConfig, DigitClient
from serving.client.errors import (
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    RequestError,
    ServingError,
    UnavailableError,
)
from serving.contract import ENCODED, IMAGES, MODEL_NAME, SIGNATURE
from tests.ports import free_port
from tests.serving.client_calls import call_async, call_sync
from tests.serving.scripted_server import answer, scripted_server, statuses

ONCE = ClientConfig(max_attempts=1)


@pytest.fixture(params=[call_sync, call_async], ids=["DigitClient", "AsyncDigitClient"])
def call(request):
    return request.param


def _images(*digits):
    """One image per digit: `scripted_server` answers the first pixel."""
    return np.repeat(np.array(digits, np.uint8), 28 * 28).reshape(-1, 28, 28)


def _count(request):
    return request.inputs[IMAGES].tensor_shape.dim[0].size


def _fail(code, message="so says the script", times=None):
    """A handler that fails, every time or just the first `times`; `handler.calls` counts."""

    def handler(request, context):
        handler.calls += 1
        if times is None or handler.calls <= times:
            context.abort(code, message)
        return answer(request)

    handler.calls = 0
    return handler


def test_images_come_back_as_digits(call):
    with scripted_server() as target:
        predictions = call(target, "predict", _images(7, 0, 3))
    assert predictions.digit.tolist() == [7, 0, 3]
    assert predictions.probabilities.shape == (3, 10)
    assert predictions.confidence == pytest.approx([0.82] * 3)
    assert predictions.version.tolist() == [1, 1, 1]


def test_a_single_image_is_a_batch_of_one(call):
    with scripted_server() as target:
        (prediction,) = call(target, "predict", _images(4)[0])
    assert prediction.digit == 4


def test_wrong_images_are_refused_before_anything_is_sent(call):
    with pytest.raises(ValueError, match="must be uint8"):
        call("127.0.0.1:1", "predict", np.zeros((1, 28, 28)))


def test_large_inputs_go_in_chunks_some_under_way_at_once_and_come_back_in_order(call):
    lock, under_way, seen = threading.Lock(), [0], []

    def slow(request, _):
        with lock:
            under_way[0] += 1
            seen.append((_count(request), under_way[0]))
        time.sleep(0.05 + 0.05 * (len(seen) % 2))  # so that they end in another order
        with lock:
            under_way[0] -= 1
        return answer(request)

    digits = [index % 10 for index in range(23)]
    with scripted_server(predict=slow) as target:
        config = ClientConfig(chunk_images=2, chunks_in_flight=3)
        predictions = call(target, "predict", _images(*digits), config=config)
    assert predictions.digit.tolist() == digits
    assert sorted(count for count, _ in seen) == [1] + 11 * [2]
    assert max(at_once for _, at_once in seen) == 3


def test_pictures_come_back_as_digits_with_what_the_model_saw(call):
    with scripted_server() as target:
        config = ClientConfig(chunk_pictures=2)
        predictions = call(target, "predict_pictures", [bytes([index, 0]) for index in range(7)], config=config)
        alone = call(target, "predict_pictures", b"\x09PNG")
    assert predictions.digit.tolist() == list(range(7))
    assert predictions.normalized[:, 3, 4].tolist() == list(range(7))
    assert [(one.digit, int(one.normalized.max())) for one in alone] == [(9, 9)]


def test_a_picture_larger_than_a_message_goes_alone_and_is_sent_again_like_any_other(call):
    flaky = _fail(grpc.StatusCode.UNAVAILABLE, times=1)
    with scripted_server(predict=flaky, max_message_bytes=-1) as target:
        predictions = call(target, "predict_pictures", [b"\x04" * 6_000_000, b"\x02"])
    assert predictions.digit.tolist() == [4, 2]
    assert flaky.calls == 3


@pytest.mark.parametrize("chunk_pictures", [1, 2, 4, 32])
def test_the_error_says_which_picture_of_the_call_the_server_cannot_use(call, chunk_pictures):
    def refuse(request, context):
        encoded = list(request.inputs[ENCODED].string_val)
        if b"bad" in encoded:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"picture {encoded.index(b'bad')} cannot be decoded")
        return answer(request)

    config = ClientConfig(chunk_pictures=chunk_pictures)
    with scripted_server(predict=refuse) as target, pytest.raises(InvalidRequestError) as caught:
        call(target, "predict_pictures", [b"good"] * 5 + [b"bad"] + [b"good"] * 3, config=config)
    assert caught.value.index == 5
    assert pickle.loads(pickle.dumps(caught.value)).index == 5


def test_one_failed_chunk_fails_the_whole_call(call):
    def fail_on_nine(request, context):
        if b"\x09" in request.inputs[IMAGES].tensor_content:
            context.abort(grpc.StatusCode.INTERNAL, "nine")
        return answer(request)

    config = ClientConfig(chunk_images=1)
    with scripted_server(predict=fail_on_nine) as target, pytest.raises(RequestError, match="INTERNAL: nine"):
        call(target, "predict", _images(1, 2, 9, 3), config=config)


def test_a_swap_between_two_chunks_shows_in_the_versions(call):
    versions = itertools.count(1)
    with scripted_server(predict=lambda request, _: answer(request, version=next(versions))) as target:
        config = ClientConfig(chunk_images=2, chunks_in_flight=1)
        assert call(target, "predict", _images(0, 1, 2), config=config).version.tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("settings", "choice", "value"),
    [({"version": 7}, "version", 7), ({"version_label": "stable"}, "version_label", "stable"), ({}, None, None)],
)
def test_the_model_asked_for_is_named_in_the_request(call, settings, choice, value):
    asked = []
    with scripted_server(predict=lambda request, _: asked.append(request.model_spec) or answer(request)) as target:
        call(target, "predict", _images(1), config=ClientConfig(**settings))
    (spec,) = asked
    assert (spec.name, spec.signature_name, spec.WhichOneof("version_choice")) == (MODEL_NAME, SIGNATURE, choice)
    if choice:
        assert getattr(getattr(spec, choice), "value", getattr(spec, choice)) == value


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
def test_a_failure_keeps_the_servers_code_and_words(call, code, error):
    script = _fail(grpc.StatusCode[code], "the server's own words")
    with scripted_server(predict=script) as target, pytest.raises(ServingError) as caught:
        call(target, "predict", _images(1), config=ONCE)
    assert type(caught.value) is error
    assert (caught.value.code, caught.value.details, caught.value.target) == (code, "the server's own words", target)
    assert "the server's own words" in str(caught.value)
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_unavailable_is_asked_again_until_it_answers(call):
    script = _fail(grpc.StatusCode.UNAVAILABLE, times=3)
    with scripted_server(predict=script) as target:
        assert call(target, "predict", _images(6)).digit.tolist() == [6]
    assert script.calls == 4


def test_a_request_above_grpcs_default_retry_buffer_is_asked_again_too(call):
    script = _fail(grpc.StatusCode.UNAVAILABLE, times=1)
    with scripted_server(predict=script) as target:
        config = ClientConfig(chunk_images=5000)
        predictions = call(target, "predict", np.zeros((5000, 28, 28), np.uint8), config=config)
    assert len(predictions) == 5000
    assert script.calls == 2


@pytest.mark.parametrize(("max_attempts", "sent"), [(1, 1), (3, 3)])
def test_unavailable_ends_as_an_error_after_the_attempts_are_used_up(call, max_attempts, sent):
    script = _fail(grpc.StatusCode.UNAVAILABLE)
    with scripted_server(predict=script) as target, pytest.raises(UnavailableError):
        call(target, "predict", _images(6), config=ClientConfig(max_attempts=max_attempts))
    assert script.calls == sent


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", "RESOURCE_EXHAUSTED"])
def test_what_asking_again_cannot_help_is_sent_once(call, code):
    script = _fail(grpc.StatusCode[code])
    with scripted_server(predict=script) as target, pytest.raises(RequestError):
        call(target, "predict", _images(6))
    assert script.calls == 1


def test_a_server_that_never_answers_is_left_at_the_deadline(call):
    wake = threading.Event()
    with scripted_server(predict=lambda request, _: wake.wait(5) and answer(request)) as target:
        begin = time.monotonic()
        with pytest.raises(DeadlineError):
            call(target, "predict", _images(1), timeout_seconds=0.2)
        assert time.monotonic() - begin < 2
        wake.set()


def test_no_server_at_all_is_unavailable_and_says_where(call):
    target = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=rf"{target} is unavailable: .*Connection refused"):
        call(target, "predict", _images(1))


@pytest.mark.parametrize("target", ["", "http://localhost:8500", "https://localhost"])
def test_a_url_or_nothing_as_target_is_refused_with_what_to_give(call, target):
    with pytest.raises(ValueError, match="HOST:PORT"):
        call(target, "status")


def test_status_and_metadata_fail_like_predict_does(call):
    refuse = _fail(grpc.StatusCode.NOT_FOUND, "no model")
    with scripted_server(status=refuse, metadata=refuse) as target:
        for method in ("status", "metadata"):
            with pytest.raises(NotFoundError, match="no model"):
                call(target, method)


def test_replicas_behind_one_target_take_turns(call):
    seen = {1: 0, 2: 0}

    def replica(number):
        def predict(request, _):
            seen[number] += 1
            time.sleep(0.02)  # or else the first is done before the second is connected
            return answer(request)

        return scripted_server(predict=predict)

    with replica(1) as one, replica(2) as two:
        config = ClientConfig(chunk_images=1)
        call(f"ipv4:///{one},{two}", "predict", _images(*range(10), *range(10)), config=config)
    assert min(seen.values()) >= 5


def test_a_dns_name_is_looked_up(call):
    with scripted_server() as target:
        port = target.rpartition(":")[2]
        assert call(f"dns:///localhost:{port}", "predict", _images(5)).digit.tolist() == [5]


def test_waiting_outlasts_a_server_that_is_still_starting(call):
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(call, f"127.0.0.1:{port}", "wait_until_available", timeout_seconds=20)
        time.sleep(0.5)
        assert not found.done()
        with scripted_server(status=lambda *_: statuses((3, "LOADING"), (2, "AVAILABLE")), port=port):
            assert found.result() == 2


def test_waiting_for_a_version_outlasts_not_found_and_loading(call):
    asked, answers = [], iter([None, statuses((7, "START")), statuses((7, "LOADING")), statuses((7, "AVAILABLE"))])

    def status(request, context):
        asked.append(request.model_spec.version.value)
        return next(answers) or context.abort(grpc.StatusCode.NOT_FOUND, "no such version")

    with scripted_server(status=status) as target:
        assert call(target, "wait_until_available", 7) == 7
    assert asked == [7, 7, 7, 7]


def test_waiting_ends_with_what_was_seen_last(call):
    says = r"version 7 was not AVAILABLE within 0\.3 s; at last: version 7 LOADING"
    loading = scripted_server(status=lambda *_: statuses((7, "LOADING")))
    with loading as target, pytest.raises(NotReadyError, match=says):
        call(target, "wait_until_available", 7, timeout_seconds=0.3)


def test_waiting_ends_at_once_for_a_version_that_was_given_up(call):
    failed = statuses((7, "END"), error_code=3, error_message="Could not find variable")
    says = r"version 7 could not be loaded.*INVALID_ARGUMENT: Could not find"
    with scripted_server(status=lambda *_: failed) as target, pytest.raises(NotReadyError, match=says):
        call(target, "wait_until_available", 7)


def test_waiting_ends_at_once_for_an_answer_that_time_cannot_change(call):
    refuse = _fail(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
    with scripted_server(status=refuse) as target, pytest.raises(RequestError, match="UNAUTHENTICATED"):
        call(target, "wait_until_available")


def test_threads_share_one_client():
    with scripted_server() as target, DigitClient(target) as client, ThreadPoolExecutor(8) as pool:
        digits = [index % 10 for index in range(200)]
        answers = pool.map(lambda digit: client.predict(_images(digit)).digit[0], digits)
        assert list(answers) == digits


def test_tasks_share_one_client():
    async def ask(target):
        async with AsyncDigitClient(target) as client:
            answers = await asyncio.gather(*(client.predict(_images(index % 10)) for index in range(200)))
        return [int(one.digit[0]) for one in answers]

    with scripted_server() as target:
        assert asyncio.run(ask(target)) == [index % 10 for index in range(200)]


def test_cancelling_a_coroutine_cancels_its_requests():
    cancelled, started = threading.Event(), threading.Event()

    def hang(request, context):
        context.add_callback(cancelled.set)
        started.set()
        cancelled.wait(10)
        return answer(request)

    async def cancel(target):
        async with AsyncDigitClient(target) as client:
            asking = asyncio.create_task(client.predict(_images(1)))
            await asyncio.to_thread(started.wait, 10)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert await asyncio.to_thread(cancelled.wait, 5)

    with scripted_server(predict=hang) as target:
        asyncio.run(cancel(target))
