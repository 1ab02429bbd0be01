"""Conformance cases 1 to 16 and 26 to 36: Predict.

The cases of this folder are the numbered rows of docs/serving-conformance.md. Each runs against the local server and, if
there is one, against TensorFlow Serving (see tests/serving/conftest.py).
"""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from serving import contract
from tests.serving.saved_models import expected_digits, images_of, write_half_plus_two, write_version
from tests.serving.stubs import (
    digits_of,
    model_spec,
    outputs_of,
    pictures_request,
    predict_request,
    rejected,
    request_of,
)

IMAGES = images_of(3, 0, 9)


def test_01_an_empty_request_is_invalid(two_versions):
    with rejected("INVALID_ARGUMENT", "Missing ModelSpec"):
        two_versions.predict(predict_pb2.PredictRequest())


def test_02_a_spec_without_a_name_is_invalid(two_versions):
    with rejected("INVALID_ARGUMENT", "name"):
        two_versions.predict(predict_request(IMAGES, name="", signature="serving_default"))


def test_03_an_unknown_model_is_not_found(two_versions):
    with rejected("NOT_FOUND", "letters"):
        two_versions.predict(predict_request(IMAGES, name="letters"))


def test_04_an_unknown_version_is_not_found(two_versions):
    with rejected("NOT_FOUND", "99"):
        two_versions.predict(predict_request(IMAGES, version=99))


def test_05_an_unknown_label_is_invalid(two_versions):
    with rejected("INVALID_ARGUMENT", "canary"):
        two_versions.predict(predict_request(IMAGES, label="canary"))


def test_06_an_unknown_signature_is_a_failed_precondition(two_versions):
    with rejected("FAILED_PRECONDITION", "sketches"):
        two_versions.predict(predict_request(IMAGES, signature="sketches"))


def test_07_missing_inputs_are_invalid_and_the_message_names_them(two_versions):
    with rejected("INVALID_ARGUMENT", contract.IMAGES):
        two_versions.predict(predict_pb2.PredictRequest(model_spec=model_spec()))


def test_08_a_misnamed_input_is_invalid_and_the_message_names_it(two_versions):
    request = predict_request(IMAGES)
    request.inputs["pixels"].CopyFrom(request.inputs.pop(contract.IMAGES))
    with rejected("INVALID_ARGUMENT", contract.IMAGES, "pixels"):
        two_versions.predict(request)


def test_09_an_extra_input_is_invalid_and_the_message_names_it(two_versions):
    request = predict_request(IMAGES)
    request.inputs["pixels"].CopyFrom(request.inputs[contract.IMAGES])
    with rejected("INVALID_ARGUMENT", "pixels"):
        two_versions.predict(request)


@pytest.mark.parametrize("shape", [[2, 28, 28], [1, 28, 28, 7], [-1, 28, 28], [2**40, 2**40, 28]])
def test_10_bytes_that_do_not_fit_their_shape_are_invalid(two_versions, shape):
    request = predict_request(images_of(3))
    dimensions = request.inputs[contract.IMAGES].tensor_shape.dim
    del dimensions[:]
    for size in shape:
        dimensions.add(size=size)
    with rejected("INVALID_ARGUMENT"):
        two_versions.predict(request)


def test_11_strings_instead_of_pixels_are_invalid(two_versions):
    request = predict_request(IMAGES)
    request.inputs[contract.IMAGES].CopyFrom(tf.make_tensor_proto(["seven"]))
    with rejected("INVALID_ARGUMENT"):
        two_versions.predict(request)


def test_12_an_unknown_output_in_the_filter_is_invalid(two_versions):
    request = predict_request(IMAGES)
    request.output_filter.append("logits")
    with rejected("INVALID_ARGUMENT", "logits"):
        two_versions.predict(request)


def test_13_a_repeated_output_in_the_filter_is_invalid(two_versions):
    request = predict_request(IMAGES)
    request.output_filter.extend([contract.DIGIT, contract.DIGIT])
    with rejected("INVALID_ARGUMENT", "duplicate", contract.DIGIT):
        two_versions.predict(request)


def test_14_a_response_names_the_version_and_signature_that_served(two_versions):
    response = two_versions.predict(predict_request(IMAGES))
    assert response.model_spec == model_spec(signature=contract.SIGNATURE, version=2)
    outputs = outputs_of(response)
    assert set(outputs) == {contract.PROBABILITIES, contract.DIGIT, contract.CONFIDENCE}
    assert outputs[contract.DIGIT].tolist() == expected_digits(IMAGES, shift=1).tolist()
    np.testing.assert_allclose(outputs[contract.PROBABILITIES].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(outputs[contract.PROBABILITIES].max(axis=1), outputs[contract.CONFIDENCE])


def test_14_the_output_filter_selects_outputs_and_responses_use_typed_fields(two_versions):
    request = predict_request(IMAGES)
    request.output_filter.append(contract.CONFIDENCE)
    (tensor,) = two_versions.predict(request).outputs.values()
    assert len(tensor.float_val) == len(IMAGES)
    assert not tensor.tensor_content


def test_15_a_named_signature_is_echoed(two_versions):
    png = tf.io.encode_png(images_of(7)[0][..., None]).numpy()
    response = two_versions.predict(pictures_request(png))
    assert response.model_spec.signature_name == "pictures"
    assert digits_of(response) == [8]


def test_16_a_version_and_a_label_select_that_version_and_the_label_is_not_echoed(two_versions):
    for asked in ({"version": 1}, {"label": "stable"}):
        response = two_versions.predict(predict_request(IMAGES, **asked))
        assert response.model_spec == model_spec(signature=contract.SIGNATURE, version=1)
        assert digits_of(response) == expected_digits(IMAGES).tolist()


def test_26_a_passed_deadline_is_deadline_exceeded(two_versions):
    with rejected("DEADLINE_EXCEEDED"):
        two_versions.predict(predict_request(IMAGES), timeout=-1)


def test_27_typed_values_and_tensor_content_give_the_same_response(two_versions):
    in_bytes = predict_request(IMAGES)
    assert in_bytes.inputs[contract.IMAGES].tensor_content
    typed = predict_request(IMAGES)
    typed.inputs[contract.IMAGES].ClearField("tensor_content")
    typed.inputs[contract.IMAGES].int_val.extend(IMAGES.ravel().tolist())
    assert two_versions.predict(typed) == two_versions.predict(in_bytes)


def test_27_the_last_of_too_few_typed_values_is_repeated(two_versions):
    request = predict_request(IMAGES[:1])
    request.inputs[contract.IMAGES].ClearField("tensor_content")
    request.inputs[contract.IMAGES].int_val.append(int(IMAGES[0, 0, 0]))
    assert digits_of(two_versions.predict(request)) == expected_digits(IMAGES[:1], shift=1).tolist()


@pytest.fixture(scope="module")
def half_plus_two(start, tmp_path_factory):
    base_path = tmp_path_factory.mktemp("half_plus_two") / contract.MODEL_NAME
    write_half_plus_two(base_path)
    with start(base_path) as stubs:
        yield stubs


def test_28_a_scalar_for_a_batch_is_what_the_graph_makes_of_it(half_plus_two):
    response = half_plus_two.predict(request_of(x=np.float32(2)))
    assert outputs_of(response)["y"] == 3.0


@pytest.mark.parametrize("shape", [(1, 28, 28, 1), (1, 14, 56), (28, 28), (1, 784), (28, 28, 1)])
def test_29_a_shape_that_the_graph_rejects_is_invalid(two_versions, shape):
    with rejected("INVALID_ARGUMENT"):
        two_versions.predict(predict_request(np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("rows", [0, 1001, 5000])
def test_30_without_batching_any_number_of_rows_is_served(two_versions, rows):
    images = np.zeros((rows, *contract.IMAGE_SHAPE), np.uint8)
    assert digits_of(two_versions.predict(predict_request(images))) == [1] * rows


def test_31_with_batching_more_rows_than_a_batch_are_invalid(start, tmp_path):
    parameters = tmp_path / "batching"
    parameters.write_text(
        "max_batch_size { value: 4 } max_enqueued_batches { value: 100 } num_batch_threads { value: 1 }"
    )
    write_version(tmp_path / "digits", 1)
    with start(tmp_path / "digits", enable_batching=True, batching_parameters_file=parameters) as stubs:
        assert len(digits_of(stubs.predict(predict_request(images_of(1, 2, 3, 4))))) == 4
        with rejected("INVALID_ARGUMENT", "5", "4"):
            stubs.predict(predict_request(images_of(1, 2, 3, 4, 5)))
        status, body = stubs.rest.predict({"instances": images_of(1, 2, 3, 4, 5).tolist()})
        assert status == 400
        assert "4" in body["error"]


def test_32_with_batching_a_full_queue_is_unavailable(start, tmp_path):
    parameters = tmp_path / "batching"
    parameters.write_text(
        "max_batch_size { value: 2 } max_enqueued_batches { value: 1 } num_batch_threads { value: 1 }"
    )
    write_version(tmp_path / "digits", 1, work=300)
    with start(tmp_path / "digits", enable_batching=True, batching_parameters_file=parameters) as stubs:
        calls = [stubs.prediction.Predict.future(predict_request(images_of(1, 2)), timeout=60) for _ in range(20)]
        assert {call.code().name for call in calls} == {"OK", "UNAVAILABLE"}
        assert digits_of(stubs.predict(predict_request(images_of(5)))) == [5]


def test_33_large_batches_are_split_and_padded_to_the_allowed_sizes(start, tmp_path):
    parameters = tmp_path / "batching"
    parameters.write_text(
        "max_batch_size { value: 50 } max_enqueued_batches { value: 100 } num_batch_threads { value: 1 } "
        "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 8 } "
        "allowed_batch_sizes: 3 allowed_batch_sizes: 8"
    )
    write_version(tmp_path / "digits", 1)
    with start(tmp_path / "digits", enable_batching=True, batching_parameters_file=parameters) as stubs:
        for rows in (1, 3, 5, 8, 21, 50):
            images = images_of(*(row % 10 for row in range(rows)))
            assert digits_of(stubs.predict(predict_request(images))) == expected_digits(images).tolist()
        with rejected("INVALID_ARGUMENT", "51"):
            stubs.predict(predict_request(np.zeros((51, 28, 28), np.uint8)))


def test_34_the_init_op_is_no_signature_to_predict_with(two_versions):
    with rejected("INVALID_ARGUMENT"):
        two_versions.predict(predict_request(IMAGES, signature="__saved_model_init_op"))


def test_35_an_omitted_input_has_the_default_of_its_signature(half_plus_two):
    response = half_plus_two.predict(request_of(signature="with_default"))
    assert outputs_of(response)["y"].tolist() == [[3.0]]
    response = half_plus_two.predict(request_of(signature="with_default", x=np.array([[4.0]], np.float32)))
    assert outputs_of(response)["y"].tolist() == [[4.0]]


def test_36_an_unknown_input_is_invalid_for_a_signature_with_defaults(half_plus_two):
    with rejected("INVALID_ARGUMENT"):
        half_plus_two.predict(request_of(signature="with_default", z=np.array([[4.0]], np.float32)))
