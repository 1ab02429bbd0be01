"""What servers answer, in the API package's own messages, and what the client makes of it."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

import serving.client.responses as responses
import serving.client.wire_pb2 as wire
from serving import contract
from serving.client.errors import ResponseError
from serving.client.results import TensorSpec
from tests.serving.scripted_server import answer_digits, answer_pictures, statuses

DIGITS = np.array([3, 1, 4, 1, 5, 9])
PICTURES = [b"\x03", b"\xff"]


def _decode(response: predict_pb2.PredictResponse, count: int = len(DIGITS)):
    return responses.decode_predictions(_ours(response), count)


def _ours(response: predict_pb2.PredictResponse) -> wire.PredictResponse:
    return wire.PredictResponse.FromString(response.SerializeToString())


def _with_typed_fields(response: predict_pb2.PredictResponse) -> predict_pb2.PredictResponse:
    """The same answer as TensorFlow Serving writes it by default."""
    fields = {tf.int64: "int64_val", tf.float32: "float_val", tf.uint8: "int_val"}
    for tensor in response.outputs.values():
        field = fields[tf.dtypes.as_dtype(tensor.dtype)]
        values = tf.make_ndarray(tensor).ravel().tolist()
        tensor.ClearField("tensor_content")
        getattr(tensor, field)[:] = values
    return response


@pytest.mark.parametrize("write", [_with_typed_fields, lambda response: response], ids=["typed", "tensor_content"])
def test_both_encodings_of_an_answer_read_the_same(write):
    answer = write(answer_digits(DIGITS, version=20261122134501))
    predictions = _decode(answer)
    for name in (contract.DIGIT, contract.CONFIDENCE, contract.PROBABILITIES):
        found, expected = getattr(predictions, name), tf.make_ndarray(answer.outputs[name])
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    assert predictions.version.tolist() == [20261122134501] * len(DIGITS)


@pytest.mark.parametrize("write", [_with_typed_fields, lambda response: response], ids=["typed", "tensor_content"])
def test_both_encodings_of_what_the_model_saw_read_the_same(write):
    answer = write(answer_pictures(PICTURES))
    predictions = responses.decode_picture_predictions(_ours(answer), len(PICTURES))
    assert predictions.normalized.dtype == np.uint8
    assert np.array_equal(predictions.normalized, tf.make_ndarray(answer.outputs[contract.NORMALIZED]))
    assert [int(one.normalized[27, 27]) for one in predictions] == [3, 255]
    assert predictions.digit.tolist() == [3, 5]


def test_a_typed_pixel_above_255_is_an_error():
    answer = _with_typed_fields(answer_pictures(PICTURES))
    answer.outputs[contract.NORMALIZED].int_val[5] = 256
    with pytest.raises(ResponseError, match="int_val holds values that are no DT_UINT8"):
        responses.decode_picture_predictions(_ours(answer), len(PICTURES))


def test_an_answer_that_does_not_show_what_the_model_saw_is_an_error():
    with pytest.raises(ResponseError, match=r"has no \['normalized'\]"):
        responses.decode_picture_predictions(_ours(answer_digits(DIGITS)), len(DIGITS))


def test_a_typed_field_that_stops_early_repeats_its_last_element():
    answer = _with_typed_fields(answer_digits(np.array([2, 7, 7, 7])))
    answer.outputs[contract.DIGIT].int64_val[:] = [2, 7]
    assert tf.make_ndarray(answer.outputs[contract.DIGIT]).tolist() == [2, 7, 7, 7]
    assert _decode(answer, 4).digit.tolist() == [2, 7, 7, 7]


def test_predictions_are_a_sequence_of_single_answers():
    predictions = _decode(answer_digits(DIGITS, version=5))
    assert len(predictions) == len(DIGITS)
    assert [one.digit for one in predictions] == DIGITS.tolist()
    assert predictions[2].confidence == pytest.approx(0.82)
    assert predictions[2].probabilities.shape == (contract.CLASSES,)
    assert predictions[2].version == 5


def _without_digit(answer):
    del answer.outputs[contract.DIGIT]


def _with_float_digits(answer):
    answer.outputs[contract.DIGIT].CopyFrom(tf.make_tensor_proto(DIGITS.astype(np.float32)))


def _with_a_flat_shape(answer):
    answer.outputs[contract.PROBABILITIES].tensor_shape.CopyFrom(tf.TensorShape([60]).as_proto())


def _with_an_unknown_type(answer):
    answer.outputs[contract.DIGIT].dtype = 23


def _with_half_the_bytes(answer):
    tensor = answer.outputs[contract.DIGIT]
    tensor.tensor_content = tensor.tensor_content[: len(tensor.tensor_content) // 2 + 1]


def _with_no_elements(answer):
    answer.outputs[contract.CONFIDENCE].ClearField("tensor_content")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_without_digit, r"has no \['digit'\]; it has \['confidence', 'probabilities'\]"),
        (_with_float_digits, r"digit must be DT_INT64 \[6\]; the answer has DT_FLOAT \[6\]"),
        (_with_a_flat_shape, r"probabilities must be DT_FLOAT \[6, 10\]; the answer has DT_FLOAT \[60\]"),
        (_with_an_unknown_type, r"the answer has 23 \[6\]"),
        (_with_half_the_bytes, "digit must hold 6 elements; the answer has 3"),
        (_with_no_elements, "confidence must hold 6 elements; the answer has 0"),
    ],
)
def test_an_answer_outside_the_contract_is_an_error_and_no_prediction(damage, says):
    answer = answer_digits(DIGITS)
    damage(answer)
    with pytest.raises(ResponseError, match=says):
        _decode(answer)


def test_an_answer_for_another_number_of_images_is_an_error():
    with pytest.raises(ResponseError, match=r"digit must be DT_INT64 \[5\]; the answer has DT_INT64 \[6\]"):
        _decode(answer_digits(DIGITS), 5)


def test_statuses_come_newest_first_with_their_errors_named():
    answer = statuses((1, "END"), (2, "AVAILABLE"), error_code=5, error_message="no graph")
    decoded = responses.decode_status(wire.GetModelStatusResponse.FromString(answer.SerializeToString()))
    assert [(one.version, one.state) for one in decoded] == [(2, "AVAILABLE"), (1, "END")]
    assert (decoded[1].error_code, decoded[1].error_message) == ("NOT_FOUND", "no graph")


def test_metadata_gives_each_signature_with_names_types_and_shapes():
    signatures = get_model_metadata_pb2.SignatureDefMap()
    signature = signatures.signature_def[contract.SIGNATURE]
    signature.inputs["images"].dtype = tf.uint8.as_datatype_enum
    signature.inputs["images"].tensor_shape.CopyFrom(tf.TensorShape([None, 28, 28]).as_proto())
    signature.outputs["anything"].dtype = tf.string.as_datatype_enum
    signature.outputs["anything"].tensor_shape.unknown_rank = True
    answer = get_model_metadata_pb2.GetModelMetadataResponse()
    answer.model_spec.name, answer.model_spec.version.value = "digits", 7
    answer.metadata["signature_def"].Pack(signatures)
    metadata = responses.decode_metadata(wire.GetModelMetadataResponse.FromString(answer.SerializeToString()))
    assert (metadata.name, metadata.version) == ("digits", 7)
    found = metadata.signatures[contract.SIGNATURE]
    assert found.inputs == {"images": TensorSpec(dtype="DT_UINT8", shape=(None, 28, 28))}
    assert found.outputs == {"anything": TensorSpec(dtype="DT_STRING", shape=None)}


def test_metadata_without_signatures_is_an_error():
    answer = wire.GetModelMetadataResponse()
    with pytest.raises(ResponseError, match="no 'signature_def'"):
        responses.decode_metadata(answer)
    answer.metadata["signature_def"].value = b"no such message"
    with pytest.raises(ResponseError, match="not a map of signatures"):
        responses.decode_metadata(answer)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_answers_are_predictions_of_the_right_shape_or_an_error(changes):
    damaged = bytearray(_with_typed_fields(answer_pictures(PICTURES)).SerializeToString())
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        response = wire.PredictResponse.FromString(bytes(damaged))
    except DecodeError:  # which gRPC makes a failed request of
        return
    with contextlib.suppress(ResponseError):
        predictions = responses.decode_picture_predictions(response, 2)
        assert (predictions.digit.shape, predictions.digit.dtype) == ((2,), np.int64)
        assert (predictions.probabilities.shape, predictions.probabilities.dtype) == ((2, 10), np.float32)
        assert (predictions.normalized.shape, predictions.normalized.dtype) == ((2, 28, 28), np.uint8)
