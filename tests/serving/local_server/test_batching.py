"""Dynamic batching: every request gets its own outputs; an error affects only the requests of its run."""

import concurrent.futures

import numpy as np
import pytest
import tensorflow as tf

from serving import contract
from serving.local_server.config import BatchingParameters
from serving.local_server.server import LocalServer
from tests.serving.saved_models import expected_digits, images_of, write_version
from tests.serving.stubs import Stubs, digits_of, model_spec, outputs_of, pictures_request, predict_request, rejected
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A server with slow runs, so that requests queue up; the queue holds 2 batches of 4 rows."""
    base_path = tmp_path_factory.mktemp("slow") / "digits"
    write_version(base_path, 1, work=60)
    with (
        LocalServer(base_path, batching=BatchingParameters(max_batch_size=4, max_enqueued_batches=2)) as server,
        Stubs(server.target) as stubs,
    ):
        yield stubs


def test_requests_of_different_sizes_each_get_their_own_rows(slow):
    generator = np.random.default_rng(0)
    batches = [
        generator.integers(0, 256, (rows, *contract.IMAGE_SHAPE), np.uint8) for rows in generator.integers(1, 3, 40)
    ]

    def ask(images):
        return digits_of(slow.predict(predict_request(images)))

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for images, digits in zip(batches, pool.map(ask, batches), strict=True):
            assert digits == expected_digits(images).tolist()


def test_a_full_queue_is_unavailable_until_it_has_room(slow):
    calls = [slow.prediction.Predict.future(predict_request(images_of(1, 2)), timeout=60) for _ in range(40)]
    codes = {call.code().name for call in calls}
    assert codes == {"OK", "UNAVAILABLE"}
    assert any("queue" in (call.details() or "") for call in calls)
    assert digits_of(slow.predict(predict_request(images_of(5)))) == [5]


def test_more_rows_than_a_batch_may_have_are_invalid(slow):
    assert len(digits_of(slow.predict(predict_request(images_of(1, 2, 3, 4))))) == 4
    with rejected("INVALID_ARGUMENT", "5", "4"):
        slow.predict(predict_request(images_of(1, 2, 3, 4, 5)))


def test_a_request_without_rows_gets_outputs_without_rows(slow):
    outputs = outputs_of(slow.predict(predict_request(images_of())))
    assert outputs[contract.PROBABILITIES].shape == (0, contract.CLASSES)


def test_an_error_fails_the_requests_of_its_run_and_no_others(slow):
    blocker = slow.prediction.Predict.future(predict_request(images_of(1)), timeout=60)
    pictures = [png_of(3), b"no picture", png_of(5), png_of(8)]
    joined = [slow.prediction.Predict.future(pictures_request(picture), timeout=60) for picture in pictures]
    later = slow.prediction.Predict.future(predict_request(images_of(2)), timeout=60)
    assert digits_of(blocker.result()) == [1]
    assert {call.code().name for call in joined} <= {"OK", "INVALID_ARGUMENT"}
    assert joined[1].code().name == "INVALID_ARGUMENT"
    assert digits_of(later.result()) == [2]
    assert digits_of(slow.predict(pictures_request(png_of(5)))) == [5]


def test_a_request_whose_deadline_passes_leaves_the_queue(slow):
    for _ in range(3):
        calls = [slow.prediction.Predict.future(predict_request(images_of(1)), timeout=0.05) for _ in range(8)]
        wait_until(lambda: all(call.done() for call in calls))  # noqa: B023 - done before the next round
    assert digits_of(slow.predict(predict_request(images_of(2)))) == [2]


def png_of(digit):
    return tf.io.encode_png(images_of(digit)[0][..., None]).numpy()


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Signatures with a scalar, a fixed batch, two inputs and a free inner size."""
    base_path = tmp_path_factory.mktemp("odd") / "digits"
    model = tf.Module()
    scalar = tf.function(lambda x: {"y": x + 1}, input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    fixed = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([2], tf.float64, name="x")])
    pair = tf.function(
        lambda a, b: {"y": tf.concat([a, b], 1)},
        input_signature=[tf.TensorSpec([None, None], tf.int32, name=name) for name in "ab"],
    )
    total = tf.function(lambda x: {"y": tf.reduce_any(x)}, input_signature=[tf.TensorSpec([None], tf.bool, name="x")])
    signatures = {"scalar": scalar, "fixed": fixed, "pair": pair, "any": total}
    tf.saved_model.save(model, str(base_path / "1"), signatures=signatures)
    with LocalServer(base_path, batching=BatchingParameters()) as server, Stubs(server.target) as stubs:
        yield stubs


def ask(stubs, signature, **inputs):
    request = predict_request(images_of(1), signature=signature)
    request.ClearField("inputs")
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return outputs_of(stubs.predict(request))["y"]


def test_requests_of_signatures_without_a_batch_dimension_are_not_joined(odd):
    assert ask(odd, "scalar", x=np.float32(1)) == 2
    np.testing.assert_array_equal(ask(odd, "fixed", x=np.array([1.0, 2.0])), [2, 4])
    assert ask(odd, "any", x=np.array([False, True, False]))
    assert ask(odd, "fixed", x=np.array([1.0, 2.0, 3.0])).tolist() == [2, 4, 6]
    assert ask(odd, "scalar", x=np.array([1, 2], np.float32)).tolist() == [2, 3]


def test_inputs_of_different_lengths_are_invalid_and_inner_sizes_may_differ(odd):
    one = np.ones((1, 1), np.int32)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        widths = [1, 2, 3] * 20
        outputs = pool.map(lambda width: ask(odd, "pair", a=one.repeat(width, axis=1), b=one), widths)
        assert [output.shape for output in outputs] == [(1, width + 1) for width in widths]
    with rejected("INVALID_ARGUMENT", "0th-dimension"):
        ask(odd, "pair", a=one, b=one.repeat(2, axis=0))


def test_a_missing_default_signature_is_a_failed_precondition(odd):
    with rejected("FAILED_PRECONDITION", "serving_default"):
        request = predict_request(images_of(1))
        request.model_spec.CopyFrom(model_spec())
        odd.predict(request)
