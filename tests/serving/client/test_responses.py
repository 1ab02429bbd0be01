"""Responses in the API package's own messages, and how the client decodes them."""

import contextlib
import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

import serving.client.responses as responses
import serving.client.wire_pb2 as wire
from serving import contract
from serving.client.errors import ResponseError
from serving.client.results import UNKNOWN, TensorSpec
from tests.serving.scripted_server import NO_DIGIT, TWO_DIGITS, digits_response, pictures_response, status_response

DIGITS = np.array([3, 1, 4, 1, 5, 9])
PICTURES = [b"\x03", b"\xff"]


def _decode(response: predict_pb2.PredictResponse, count: int = len(DIGITS)):
    return responses.decode_predictions(response.SerializeToString(), count)


def _with_typed_fields(response: predict_pb2.PredictResponse) -> predict_pb2.PredictResponse:
    """Return the same response in typed fields, which TensorFlow Serving fills by default."""
    fields = {tf.int64: "int64_val", tf.float32: "float_val", tf.uint8: "int_val", tf.string: "string_val"}
    for tensor in response.outputs.values():
        field = fields[tf.dtypes.as_dtype(tensor.dtype)]
        values = tf.make_ndarray(tensor).ravel().tolist()
        tensor.ClearField("tensor_content")
        getattr(tensor, field)[:] = values
    return response


@pytest.mark.parametrize("write", [_with_typed_fields, lambda response: response], ids=["typed", "tensor_content"])
def test_both_encodings_of_a_response_decode_to_the_same(write):
    response = write(digits_response(DIGITS, version=20261122134501))
    predictions = _decode(response)
    for name in (contract.DIGIT, contract.CONFIDENCE, contract.PROBABILITIES):
        found, expected = getattr(predictions, name), tf.make_ndarray(response.outputs[name])
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    assert predictions.version.tolist() == [20261122134501] * len(DIGITS)


@pytest.mark.parametrize("problems", [["", "cannot be decoded"], ["", ""], ["x" * 300, "ungültig"]])
def test_both_encodings_of_strings_decode_to_the_same(problems):
    response = wire.PredictResponse.FromString(pictures_response(PICTURES).SerializeToString())
    tensor = response.outputs[contract.PROBLEM]
    encoded = [problem.encode() for problem in problems]
    del tensor.string_val[:]
    tensor.string_val.extend(encoded)
    assert responses.decode_picture_predictions(response.SerializeToString(), 2).problem.tolist() == problems
    del tensor.string_val[:]
    tensor.tensor_content = b"".join([*(_varint(len(one)) for one in encoded), *encoded])  # as TensorFlow writes it
    assert responses.decode_picture_predictions(response.SerializeToString(), 2).problem.tolist() == problems


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)


def test_a_response_of_an_earlier_version_has_no_problems_and_an_unknown_number_of_digits():
    response = wire.PredictResponse.FromString(pictures_response(PICTURES).SerializeToString())
    for name in (contract.PROBLEM, contract.FOUND, contract.BOX):
        del response.outputs[name]
    predictions = responses.decode_picture_predictions(response.SerializeToString(), 2)
    assert predictions.problem.tolist() == ["", ""]
    assert predictions.found.tolist() == [UNKNOWN, UNKNOWN]
    assert not predictions.box.any()
    assert all(one.is_one_digit for one in predictions)


@pytest.mark.parametrize("write", [_with_typed_fields, lambda response: response], ids=["typed", "tensor_content"])
def test_the_number_of_digits_and_the_box_are_decoded(write):
    response = write(pictures_response([NO_DIGIT, b"\x03", TWO_DIGITS]))
    predictions = responses.decode_picture_predictions(response.SerializeToString(), 3)
    assert predictions.found.tolist() == [0, 1, 2]
    assert [one.is_one_digit for one in predictions] == [False, True, False]
    assert predictions.box.shape == (3, 4)
    assert predictions[1].box.tolist() == [0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize("write", [_with_typed_fields, lambda response: response], ids=["typed", "tensor_content"])
def test_both_encodings_of_normalized_images_decode_to_the_same(write):
    response = write(pictures_response(PICTURES))
    predictions = responses.decode_picture_predictions(response.SerializeToString(), len(PICTURES))
    assert predictions.normalized.dtype == np.uint8
    assert np.array_equal(predictions.normalized, tf.make_ndarray(response.outputs[contract.NORMALIZED]))
    assert [int(one.normalized[27, 27]) for one in predictions] == [3, 255]
    assert predictions.digit.tolist() == [3, 5]


def test_a_typed_pixel_above_255_is_an_error():
    response = _with_typed_fields(pictures_response(PICTURES))
    response.outputs[contract.NORMALIZED].int_val[5] = 256
    with pytest.raises(ResponseError, match="int_val holds values outside DT_UINT8"):
        responses.decode_picture_predictions(response.SerializeToString(), len(PICTURES))


def test_a_response_without_normalized_images_is_an_error():
    with pytest.raises(ResponseError, match=r"has no \['normalized'\]"):
        responses.decode_picture_predictions(digits_response(DIGITS).SerializeToString(), len(DIGITS))


def test_a_typed_field_that_ends_early_repeats_its_last_element():
    response = _with_typed_fields(digits_response(np.array([2, 7, 7, 7])))
    response.outputs[contract.DIGIT].int64_val[:] = [2, 7]
    assert tf.make_ndarray(response.outputs[contract.DIGIT]).tolist() == [2, 7, 7, 7]
    assert _decode(response, 4).digit.tolist() == [2, 7, 7, 7]


def test_predictions_are_a_sequence_of_single_predictions():
    predictions = _decode(digits_response(DIGITS, version=5))
    assert len(predictions) == len(DIGITS)
    assert [one.digit for one in predictions] == DIGITS.tolist()
    assert predictions[2].confidence == pytest.approx(0.91)
    assert predictions[2].probabilities.shape == (contract.CLASSES,)
    assert predictions[2].version == 5


def test_a_slice_of_predictions_is_predictions_and_an_index_out_of_range_an_error():
    predictions = _decode(digits_response(DIGITS))
    assert predictions[1:3] == _decode(digits_response(DIGITS[1:3]), 2)
    assert predictions[-1].digit == DIGITS[-1]
    assert [one.digit for one in predictions[::-1]] == DIGITS[::-1].tolist()
    with pytest.raises(IndexError):
        predictions[len(DIGITS)]


def test_predictions_are_equal_if_all_their_values_are():
    first, second = _decode(digits_response(DIGITS)), _decode(digits_response(DIGITS))
    assert first == second
    assert first[0] == second[0]
    assert first[0] != first[1]
    assert first != _decode(digits_response(DIGITS, version=2))
    assert first != _decode(digits_response(DIGITS[:3]), 3)
    pictures = responses.decode_picture_predictions(pictures_response(PICTURES).SerializeToString(), 2)
    assert pictures[0] != first[0]
    with pytest.raises(TypeError, match="unhashable"):
        hash(first)


def test_predictions_become_plain_values_for_json():
    pictures = responses.decode_picture_predictions(pictures_response(PICTURES).SerializeToString(), 2)
    one = json.loads(json.dumps(pictures[0].to_dict()))
    assert (one["digit"], one["version"], len(one["probabilities"]), one["normalized"][3][4]) == (3, 1, 10, 3)
    both = json.loads(json.dumps(pictures.to_dict()))
    assert both["digit"] == [3, 5]
    assert both.keys() == one.keys()


def test_a_response_that_is_no_message_is_an_error():
    with pytest.raises(ResponseError, match="not a PredictResponse message"):
        responses.decode_predictions(b"\xff no message", 1)


def _without_digit(response):
    del response.outputs[contract.DIGIT]


def _with_float_digits(response):
    response.outputs[contract.DIGIT].CopyFrom(tf.make_tensor_proto(DIGITS.astype(np.float32)))


def _with_a_flat_shape(response):
    response.outputs[contract.PROBABILITIES].tensor_shape.CopyFrom(tf.TensorShape([60]).as_proto())


def _with_an_unknown_type(response):
    response.outputs[contract.DIGIT].dtype = 23


def _with_half_the_bytes(response):
    tensor = response.outputs[contract.DIGIT]
    tensor.tensor_content = tensor.tensor_content[: len(tensor.tensor_content) // 2 + 1]


def _with_no_elements(response):
    response.outputs[contract.CONFIDENCE].ClearField("tensor_content")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_digit, r"has no \['digit'\]; it has \['confidence', 'probabilities'\]"),
        (_with_float_digits, r"digit must be DT_INT64 \[6\]; the response has DT_FLOAT \[6\]"),
        (_with_a_flat_shape, r"probabilities must be DT_FLOAT \[6, 10\]; the response has DT_FLOAT \[60\]"),
        (_with_an_unknown_type, r"the response has 23 \[6\]"),
        (_with_half_the_bytes, "digit must hold 6 elements; the response has 3"),
        (_with_no_elements, "confidence must hold 6 elements; the response has 0"),
    ],
)
def test_a_response_that_breaks_the_contract_is_an_error_and_no_prediction(damage, message):
    response = digits_response(DIGITS)
    damage(response)
    with pytest.raises(ResponseError, match=message):
        _decode(response)


def test_a_response_for_another_number_of_images_is_an_error():
    with pytest.raises(ResponseError, match=r"digit must be DT_INT64 \[5\]; the response has DT_INT64 \[6\]"):
        _decode(digits_response(DIGITS), 5)


def test_statuses_are_listed_newest_first_with_error_names():
    response = status_response((1, "END"), (2, "AVAILABLE"), error_code=5, error_message="no graph")
    decoded = responses.decode_status(response.SerializeToString())
    assert [(one.version, one.state) for one in decoded] == [(2, "AVAILABLE"), (1, "END")]
    assert (decoded[1].error_code, decoded[1].error_message) == ("NOT_FOUND", "no graph")


def test_metadata_has_the_names_types_and_shapes_of_each_signature():
    signatures = get_model_metadata_pb2.SignatureDefMap()
    signature = signatures.signature_def[contract.SIGNATURE]
    signature.inputs["images"].dtype = tf.uint8.as_datatype_enum
    signature.inputs["images"].tensor_shape.CopyFrom(tf.TensorShape([None, 28, 28]).as_proto())
    signature.outputs["anything"].dtype = tf.string.as_datatype_enum
    signature.outputs["anything"].tensor_shape.unknown_rank = True
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name, response.model_spec.version.value = "digits", 7
    response.metadata["signature_def"].Pack(signatures)
    metadata = responses.decode_metadata(response.SerializeToString())
    assert (metadata.name, metadata.version) == ("digits", 7)
    found = metadata.signatures[contract.SIGNATURE]
    assert found.inputs == {"images": TensorSpec(dtype="DT_UINT8", shape=(None, 28, 28))}
    assert found.outputs == {"anything": TensorSpec(dtype="DT_STRING", shape=None)}


def test_metadata_without_signatures_is_an_error():
    response = wire.GetModelMetadataResponse()
    with pytest.raises(ResponseError, match="no 'signature_def'"):
        responses.decode_metadata(response.SerializeToString())
    response.metadata["signature_def"].value = b"no such message"
    with pytest.raises(ResponseError, match="not a SignatureDefMap message"):
        responses.decode_metadata(response.SerializeToString())


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_response_gives_predictions_of_the_right_shape_or_an_error(changes):
    damaged = bytearray(_with_typed_fields(pictures_response(PICTURES)).SerializeToString())
    for place, value in changes:
        damaged[place % len(damaged)] = value
    with contextlib.suppress(ResponseError):
        predictions = responses.decode_picture_predictions(bytes(damaged), 2)
        assert (predictions.digit.shape, predictions.digit.dtype) == ((2,), np.int64)
        assert (predictions.probabilities.shape, predictions.probabilities.dtype) == ((2, 10), np.float32)
        assert (predictions.normalized.shape, predictions.normalized.dtype) == ((2, 28, 28), np.uint8)
        assert [type(problem) for problem in predictions.problem] == [str, str]
