"""The client sends, byte for byte, the requests that the API package would send."""

import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from serving import contract
from serving.client.config import MAX_MESSAGE_BYTES, ClientConfig, Tls
from serving.client.requests import Requests
from serving.contract import MAX_PICTURE_BYTES

SPECS = [
    {},
    {"version": 20261122134501},
    {"version": 0},
    {"version_label": "stable"},
    {"model_name": "other digits"},
]


def _images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *contract.IMAGE_SHAPE), np.uint8)


def _reference_spec(message, *, model_name=contract.MODEL_NAME, version=None, version_label=None):
    message.model_spec.name = model_name
    if version is not None:
        message.model_spec.version.value = version
    if version_label is not None:
        message.model_spec.version_label = version_label
    return message


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("count", [1, 3, 128])
def test_predict_request_has_the_bytes_of_the_api_package(spec, count):
    reference = _reference_spec(predict_pb2.PredictRequest(), **spec)
    reference.model_spec.signature_name = contract.SIGNATURE
    reference.inputs[contract.IMAGES].CopyFrom(tf.make_tensor_proto(_images(count)))
    request = Requests(ClientConfig(**spec)).predict(_images(count))
    assert request.SerializeToString(deterministic=True) == reference.SerializeToString(deterministic=True)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("pictures", [[b"\x89PNG"], [b"", b"\x00", bytes(range(256)) * 20]], ids=len)
def test_pictures_request_has_the_bytes_of_the_api_package(spec, pictures):
    reference = _reference_spec(predict_pb2.PredictRequest(), **spec)
    reference.model_spec.signature_name = contract.PICTURES
    reference.inputs[contract.ENCODED].CopyFrom(tf.make_tensor_proto(pictures))
    request = Requests(ClientConfig(**spec)).predict_pictures(pictures)
    assert request.SerializeToString(deterministic=True) == reference.SerializeToString(deterministic=True)


@pytest.mark.parametrize("spec", SPECS)
def test_metadata_request_has_the_bytes_of_the_api_package(spec):
    reference = _reference_spec(get_model_metadata_pb2.GetModelMetadataRequest(), **spec)
    reference.metadata_field.append("signature_def")
    request = Requests(ClientConfig(**spec)).metadata()
    assert request.SerializeToString(deterministic=True) == reference.SerializeToString(deterministic=True)


@pytest.mark.parametrize("version", [None, 0, 20261122134501])
def test_status_request_has_the_bytes_of_the_api_package(version):
    reference = _reference_spec(get_model_status_pb2.GetModelStatusRequest(), version=version)
    request = Requests(ClientConfig(version=7)).status(version)
    assert request.SerializeToString(deterministic=True) == reference.SerializeToString(deterministic=True)


def test_chunks_hold_every_image_once_and_in_order():
    chunks = Requests(ClientConfig(chunk_images=4)).split(_images(10))
    assert [len(chunk) for chunk in chunks] == [4, 4, 2]
    assert np.array_equal(np.concatenate(chunks), _images(10))


def test_chunks_of_pictures_are_limited_in_number_and_in_bytes():
    mebibyte = 1024 * 1024
    sizes = [10, 20, 30, 3 * mebibyte, mebibyte, 9 * mebibyte, 5]
    pictures = [bytes([index]) * size for index, size in enumerate(sizes)]
    requests = Requests(ClientConfig(chunk_pictures=2))
    chunks = requests.split_pictures(pictures)
    assert [[len(picture) for picture in chunk] for chunk in chunks] == [
        [10, 20],
        [30, 3 * mebibyte],
        [mebibyte],
        [9 * mebibyte],
        [5],
    ]
    assert [picture for chunk in chunks for picture in chunk] == pictures


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 300_000), min_size=1, max_size=80))
def test_no_request_of_several_pictures_is_larger_than_a_message(sizes):
    requests = Requests(ClientConfig(model_name="m" * 1000, chunk_pictures=2000))
    chunks = requests.split_pictures([bytes(size) for size in sizes])
    assert [len(picture) for chunk in chunks for picture in chunk] == sizes
    for chunk in chunks:
        assert requests.predict_pictures(chunk).ByteSize() <= MAX_MESSAGE_BYTES


def test_a_picture_may_be_a_path_or_any_kind_of_bytes(tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(b"\x01")
    pictures = [path, b"\x02", bytearray(b"\x03"), memoryview(b"_\x04")[1:]]
    requests = Requests(ClientConfig())
    (chunk,) = requests.split_pictures(pictures)
    request = requests.predict_pictures(chunk)
    assert [*request.inputs[contract.ENCODED].string_val] == [b"\x01", b"\x02", b"\x03", b"\x04"]
    assert [requests.split_pictures(picture) for picture in pictures] == [[[picture]] for picture in pictures]


def test_a_missing_picture_file_is_named_before_anything_is_sent(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        Requests(ClientConfig()).split_pictures([b"\x89PNG", tmp_path / "missing.png"])


def test_one_picture_needs_no_list():
    assert Requests(ClientConfig()).split_pictures(b"\x89PNG") == [[b"\x89PNG"]]


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ("seven.png", "pictures must be a sequence of pathlib.Path, or of bytes"),
        (["seven.png"], "this is ['seven.png']. Use pathlib.Path(...)"),
        (np.zeros((1, 28, 28), np.uint8), "pictures must be a sequence of pathlib.Path"),
        (None, "pictures must be a sequence of pathlib.Path"),
        ([], "at least one picture"),
        ([b"", bytes(MAX_PICTURE_BYTES + 1)], f"picture 1 has {MAX_PICTURE_BYTES + 1} bytes"),
    ],
    ids=["str", "list of str", "array", "None", "empty", "too large"],
)
def test_anything_but_pictures_is_rejected_with_the_remedy(pictures, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Requests(ClientConfig()).split_pictures(pictures)


def test_images_that_are_not_contiguous_are_sent_in_reading_order():
    images = _images(3)[:, ::-1, ::-1]
    request = Requests(ClientConfig()).predict(images)
    sent = tf.make_ndarray(predict_pb2.PredictRequest.FromString(request.SerializeToString()).inputs[contract.IMAGES])
    assert np.array_equal(sent, images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 28, 28), np.float32), "float32 [2, 28, 28]. Multiply values of 0 to 1 by 255"),
        (np.zeros((2, 28, 28), np.int64), "int64 [2, 28, 28]. Use .astype(np.uint8)"),
        (np.zeros((2, 28, 28), bool), "bool [2, 28, 28]. Multiply values of 0 to 1 by 255"),
        (np.full((2, 28, 28), 65_535, np.uint16), "uint16 [2, 28, 28]. Scale the values to 0 to 255"),
        (np.zeros((2, 28, 28, 1), np.uint8), "Drop the last axis: images[..., 0]"),
        (np.zeros((2, 784), np.uint8), "Use .reshape(-1, 28, 28)"),
        (np.zeros(784, np.uint8), "Use .reshape(-1, 28, 28)"),
        (np.zeros((2, 32, 32), np.uint8), "images must be [N, 28, 28] or [28, 28]; these are uint8 [2, 32, 32]"),
        (np.zeros((0, 28, 28), np.uint8), "at least one image"),
        ("seven.png", "images must be uint8"),
        (None, "images must be uint8"),
    ],
)
def test_anything_but_uint8_images_is_rejected_with_the_remedy(images, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Requests(ClientConfig()).split(images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": 1, "version_label": "stable"}, "not both"),
        ({"version": -1}, "version must be"),
        ({"model_name": ""}, "model_name must not be empty"),
        ({"timeout_seconds": 0}, "timeout_seconds must be above 0"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds must be above 0 and at most"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds must be above 0 and at most"),
        ({"timeout_seconds": 1e18}, "timeout_seconds must be above 0 and at most"),
        ({"headers": {"x-bin": "abc"}}, "gRPC reserves names that end in -bin"),
        ({"headers": {"Authorization": "x"}}, "header 'Authorization' is invalid; names are in lower case"),
        ({"headers": [("grpc-timeout", "1S")]}, "header 'grpc-timeout' is invalid"),
        ({"headers": {"token": "line\nbreak"}}, "header 'token' is invalid"),
        ({"tls": Tls(), "channel_credentials": object()}, "give tls or channel_credentials"),
        ({"max_attempts": 6}, "max_attempts must be from 1 to 5"),
        ({"chunk_images": 0}, "chunk_images must be from 1"),
        ({"chunk_pictures": 2001}, "chunk_pictures must be from 1 to 2000"),
        ({"chunks_in_flight": 0}, "chunks_in_flight must be from 1"),
    ],
)
def test_an_invalid_config_is_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        ClientConfig(**settings)
