"""Both clients against servers on loopback: predictions, chunks, requests, replicas and closing."""

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
    ClosedError,
    InvalidRequestError,
    NotFoundError,
    RequestError,
    ResponseError,
    UnavailableError,
)
from serving.contract import IMAGES, MODEL_NAME, SIGNATURE
from tests.ports import free_port
from tests.serving.scripted_server import (
    NOT_A_PICTURE,
    earlier_response,
    fail,
    garbage_server,
    images_of,
    predict_response,
    scripted_server,
    status_response,
)


def _image_count(request):
    return request.inputs[IMAGES].tensor_shape.dim[0].size


def test_predict_returns_a_digit_per_image(call):
    with scripted_server() as target:
        predictions = call(target, "predict", images_of(7, 0, 3))
    assert predictions.digit.tolist() == [7, 0, 3]
    assert predictions.probabilities.shape == (3, 10)
    assert predictions.confidence == pytest.approx([0.91] * 3)
    assert predictions.version.tolist() == [1, 1, 1]


def test_a_single_image_is_a_batch_of_one(call):
    with scripted_server() as target:
        (prediction,) = call(target, "predict", images_of(4)[0])
    assert prediction.digit == 4


def test_wrong_images_are_rejected_before_anything_is_sent(call):
    with pytest.raises(ValueError, match="must be uint8"):
        call("127.0.0.1:1", "predict", np.zeros((1, 28, 28)))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e18])
def test_a_deadline_that_no_server_can_meet_is_not_taken_for_a_slow_server(call, seconds):
    with pytest.raises(ValueError, match="timeout_seconds must be above 0 and at most"):
        call("127.0.0.1:1", "predict", images_of(4), timeout_seconds=seconds)


def test_a_large_input_is_sent_in_chunks_some_in_flight_at_once_and_returned_in_order(call):
    lock, in_flight, seen, first_three = threading.Lock(), [0], [], threading.Barrier(3)

    def slow(request, _):
        with lock:
            in_flight[0] += 1
            seen.append((_image_count(request), in_flight[0]))
            number = len(seen)
        if number <= 3:
            first_three.wait(60)
        time.sleep(0.05 * (number % 2))  # so that they finish in another order
        with lock:
            in_flight[0] -= 1
        return predict_response(request)

    digits = [index % 10 for index in range(23)]
    with scripted_server(predict=slow) as target:
        config = ClientConfig(chunk_images=2, chunks_in_flight=3)
        predictions = call(target, "predict", images_of(*digits), config=config)
    assert predictions.digit.tolist() == digits
    assert sorted(count for count, _ in seen) == [1] + 11 * [2]
    assert max(most for _, most in seen) == 3


def test_predict_pictures_returns_digits_and_normalized_images(call):
    with scripted_server() as target:
        config = ClientConfig(chunk_pictures=2)
        predictions = call(target, "predict_pictures", [bytes([index, 0]) for index in range(7)], config=config)
        alone = call(target, "predict_pictures", b"\x09PNG")
    assert predictions.digit.tolist() == list(range(7))
    assert predictions.normalized[:, 3, 4].tolist() == list(range(7))
    assert [(one.digit, int(one.normalized.max())) for one in alone] == [(9, 9)]


def test_a_picture_larger_than_a_message_is_sent_alone_and_retried_like_any_other(call):
    flaky = fail(grpc.StatusCode.UNAVAILABLE, times=1)
    with scripted_server(predict=flaky, max_message_bytes=-1) as target:
        predictions = call(target, "predict_pictures", [b"\x04" * 6_000_000, b"\x02"])
    assert predictions.digit.tolist() == [4, 2]
    assert flaky.calls == 3


@pytest.mark.parametrize("chunk_pictures", [1, 2, 4, 32])
def test_a_picture_that_the_model_cannot_use_has_a_problem_and_the_others_have_predictions(call, chunk_pictures):
    pictures = [b"\x03"] * 5 + [NOT_A_PICTURE] + [b"\x04"] * 3
    with scripted_server() as target:
        predictions = call(target, "predict_pictures", pictures, config=ClientConfig(chunk_pictures=chunk_pictures))
    assert [(one.digit, one.problem) for one in predictions] == [
        *[(3, "")] * 5,
        (-1, "cannot be decoded; expected PNG"),
        *[(4, "")] * 3,
    ]


@pytest.mark.parametrize("chunk_pictures", [1, 2, 4, 32])
def test_a_version_without_problems_raises_an_error_with_the_index_of_the_picture(call, chunk_pictures):
    config = ClientConfig(chunk_pictures=chunk_pictures)
    pictures = [b"good"] * 5 + [NOT_A_PICTURE] + [b"good"] * 3
    with scripted_server(predict=earlier_response) as target, pytest.raises(InvalidRequestError) as caught:
        call(target, "predict_pictures", pictures, config=config)
    assert (caught.value.index, caught.value.problem) == (5, "cannot be decoded; expected PNG")
    assert pickle.loads(pickle.dumps(caught.value)).index == 5


def test_one_failed_chunk_fails_the_whole_call(call):
    def fail_on_nine(request, context):
        if b"\x09" in request.inputs[IMAGES].tensor_content:
            context.abort(grpc.StatusCode.INTERNAL, "nine")
        return predict_response(request)

    config = ClientConfig(chunk_images=1)
    with scripted_server(predict=fail_on_nine) as target, pytest.raises(RequestError, match="INTERNAL: nine"):
        call(target, "predict", images_of(1, 2, 9, 3), config=config)


def test_a_swap_between_two_chunks_shows_in_the_versions(call):
    versions = itertools.count(1)
    with scripted_server(predict=lambda request, _: predict_response(request, version=next(versions))) as target:
        config = ClientConfig(chunk_images=2, chunks_in_flight=1)
        assert call(target, "predict", images_of(0, 1, 2), config=config).version.tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("settings", "choice", "value"),
    [({"version": 7}, "version", 7), ({"version_label": "stable"}, "version_label", "stable"), ({}, None, None)],
)
def test_the_request_names_the_model_and_the_version_of_the_config(call, settings, choice, value):
    received = []

    def record(request, _):
        received.append(request.model_spec)
        return predict_response(request)

    with scripted_server(predict=record) as target:
        call(target, "predict", images_of(1), config=ClientConfig(**settings))
    (spec,) = received
    assert (spec.name, spec.signature_name, spec.WhichOneof("version_choice")) == (MODEL_NAME, SIGNATURE, choice)
    if choice:
        assert getattr(getattr(spec, choice), "value", getattr(spec, choice)) == value


def test_settings_are_keywords_of_the_client(call):
    received = []

    def record(request, _):
        received.append(request.model_spec)
        return predict_response(request)

    with scripted_server(predict=record) as target:
        call(target, "predict", images_of(1), version_label="stable")
        call(target, "predict", images_of(1), config=ClientConfig(model_name="other", version=3), version=4)
    assert received[0].version_label == "stable"
    assert (received[1].name, received[1].version.value) == ("other", 4)
    with pytest.raises(TypeError, match="versoin"):
        call(target, "predict", images_of(1), versoin=7)
    with pytest.raises(ValueError, match="not both"):
        call(target, "predict", images_of(1), version=7, version_label="stable")


@pytest.mark.parametrize(
    "headers", [{"authorization": "Bearer abc", "x-tenant": "a"}, [("authorization", "Bearer abc")]]
)
def test_headers_are_sent_with_every_request(call, headers):
    received = []

    def record(make_response):
        def handler(request, context):
            received.append(dict(context.invocation_metadata()))
            return make_response(request)

        return handler

    with scripted_server(
        predict=record(predict_response), status=record(lambda _: status_response((1, "AVAILABLE")))
    ) as target:
        call(target, "predict", images_of(1, 2), headers=headers, chunk_images=1)
        call(target, "predict", images_of(1), headers=headers)
        call(target, "status", headers=headers)
    assert len(received) == 4
    assert all(dict(headers).items() <= sent.items() for sent in received)


@pytest.mark.parametrize("damage", ["predict", "status", "metadata"])
def test_a_response_that_cannot_be_parsed_is_a_response_error(call, damage):
    with garbage_server() as target, pytest.raises(ResponseError, match="is not a"):
        call(target, damage, *([images_of(1)] if damage == "predict" else []))


def test_close_ends_pending_requests_with_a_closed_error():
    started, wake = threading.Event(), threading.Event()

    def hang(request, _):
        started.set()
        wake.wait(60)
        return predict_response(request)

    with scripted_server(predict=hang) as target, ThreadPoolExecutor(1) as pool:
        for images in (images_of(1), images_of(*range(10))):
            client = DigitClient(target, chunk_images=2)
            pending = pool.submit(client.predict, images)
            assert started.wait(60)
            client.close()
            with pytest.raises(ClosedError, match=f"the client of {target} is closed"):
                pending.result()
            started.clear()
        wake.set()


def test_close_ends_pending_requests_of_tasks_that_nobody_cancelled_with_a_closed_error():
    async def close_early(target):
        client = AsyncDigitClient(target, chunk_images=2)
        tasks = [asyncio.create_task(client.predict(images)) for images in (images_of(1), images_of(*range(10)))]
        await asyncio.to_thread(started.wait, 60)
        await client.close()
        for task in tasks:
            with pytest.raises(ClosedError):
                await task

    started, wake = threading.Event(), threading.Event()

    def hang(request, _):
        started.set()
        wake.wait(60)
        return predict_response(request)

    with scripted_server(predict=hang) as target:
        asyncio.run(close_early(target))
        wake.set()


def test_a_closed_client_raises_a_closed_error():
    async def use_closed(target):
        client = AsyncDigitClient(target, chunk_images=1)
        await client.close()
        for request in (client.predict(images_of(1)), client.predict(images_of(1, 2)), client.status()):
            with pytest.raises(ClosedError):
                await request

    with scripted_server() as target:
        client = DigitClient(target, chunk_images=1)
        client.close()
        for request in (lambda: client.predict(images_of(1)), lambda: client.predict(images_of(1, 2)), client.status):
            with pytest.raises(ClosedError):
                request()
        asyncio.run(use_closed(target))


def test_without_a_server_the_error_names_the_target(call):
    target = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=rf"{target} is unavailable: .*Connection refused"):
        call(target, "predict", images_of(1))


def test_an_invalid_target_is_rejected(call):
    with pytest.raises(ValueError, match="give HOST:PORT"):
        call("http://localhost:8501", "status")


def test_status_and_metadata_raise_as_predict_does(call):
    reject = fail(grpc.StatusCode.NOT_FOUND, "no model")
    with scripted_server(status=reject, metadata=reject) as target:
        for method in ("status", "metadata"):
            with pytest.raises(NotFoundError, match="no model"):
                call(target, method)


def test_replicas_behind_one_target_take_turns(call):
    seen = {1: 0, 2: 0}

    def replica(number):
        def predict(request, _):
            seen[number] += 1
            time.sleep(0.02 if all(seen.values()) else 0.5)  # both are connected before one has done everything
            return predict_response(request)

        return scripted_server(predict=predict)

    with replica(1) as one, replica(2) as two:
        config = ClientConfig(chunk_images=1)
        call(f"ipv4:///{one},{two}", "predict", np.zeros((200, 28, 28), np.uint8), config=config)
    assert min(seen.values()) >= 50


def test_a_dns_name_is_resolved(call):
    with scripted_server() as target:
        port = target.rpartition(":")[2]
        assert call(f"dns:///localhost:{port}", "predict", images_of(5)).digit.tolist() == [5]


def test_threads_share_one_client():
    with scripted_server() as target, DigitClient(target) as client, ThreadPoolExecutor(8) as pool:
        digits = [index % 10 for index in range(200)]
        predicted = pool.map(lambda digit: client.predict(images_of(digit)).digit[0], digits)
        assert list(predicted) == digits


def test_tasks_share_one_client():
    async def predict_all(target):
        async with AsyncDigitClient(target) as client:
            predicted = await asyncio.gather(*(client.predict(images_of(index % 10)) for index in range(200)))
        return [int(one.digit[0]) for one in predicted]

    with scripted_server() as target:
        assert asyncio.run(predict_all(target)) == [index % 10 for index in range(200)]


def test_cancelling_a_coroutine_cancels_its_requests():
    cancelled, started = threading.Event(), threading.Event()

    def hang(request, context):
        context.add_callback(cancelled.set)
        started.set()
        cancelled.wait(60)
        return predict_response(request)

    async def cancel(target):
        async with AsyncDigitClient(target) as client:
            task = asyncio.create_task(client.predict(images_of(1)))
            await asyncio.to_thread(started.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(cancelled.wait, 60)

    with scripted_server(predict=hang) as target:
        asyncio.run(cancel(target))
