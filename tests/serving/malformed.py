"""Malformed requests without end, each with the codes that are right for it. The seed decides them all."""

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from serving import contract
from tests.serving.saved_models import images_of
from tests.serving.stubs import model_spec, pictures_request, predict_request

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"

ANY_ANSWER = ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION")
"""What a request that was damaged at random may get as long as it still parses."""


@dataclass(frozen=True)
class Malformed:
    kind: str
    method: str
    content: bytes
    codes: Collection[str]


def malformed_requests(seed: int) -> Iterator[Malformed]:
    """Yields requests for ever; the same ones for the same seed."""
    generator = random.Random(seed)
    kinds = [random_bytes, damaged_bytes, wrong_shape, wrong_dtype, wrong_size, wrong_names, wrong_picture, wrong_query]
    while True:
        kind = generator.choice(kinds)
        method, content, codes = kind(generator)
        yield Malformed(kind.__name__, method, content, codes)


Case = tuple[str, bytes, Collection[str]]


def random_bytes(generator: random.Random) -> Case:
    content = generator.randbytes(generator.choice([1, 10, 100, 1000]))
    return PREDICT, content, codes_for_bytes(content)


def damaged_bytes(generator: random.Random) -> Case:
    content = bytearray(predict_request(images_of(generator.randrange(10))).SerializeToString())
    for _ in range(generator.randrange(1, 6)):
        # Most of the bytes are pixels, where damage is invisible: aim at the messages around them.
        where = generator.choice(
            [generator.randrange(len(content)), generator.randrange(60), -1 - generator.randrange(30)]
        )
        content[where] = generator.randrange(256)
    content = content[: generator.choice([len(content), generator.randrange(len(content))])]
    return PREDICT, bytes(content), codes_for_bytes(bytes(content))


def codes_for_bytes(content: bytes) -> Collection[str]:
    try:
        request = predict_pb2.PredictRequest.FromString(content)
    except DecodeError:
        return ("INTERNAL",)
    return ANY_ANSWER if request.HasField("model_spec") else ("INVALID_ARGUMENT",)


def wrong_shape(generator: random.Random) -> Case:
    request = predict_request(images_of(1, 2))
    tensor = request.inputs[contract.IMAGES]
    del tensor.tensor_shape.dim[:]
    sizes = [0, 1, 2, 27, 28, 29, -1, 2**31, 2**62, -(2**63)]
    shape = [generator.choice(sizes) for _ in range(generator.choice([0, 1, 2, 3, 3, 3, 4, 100, 300]))]
    if shape == [2, 28, 28] or (shape and shape[0] == 0):
        shape = [3, 28, 28]
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    if generator.random() < 0.5:  # typed values can be fewer than elements, so only the shape itself is wrong then
        tensor.ClearField("tensor_content")
        tensor.int_val.append(generator.randrange(-(2**31), 2**31))
        if shape == [1, 28, 28] or shape == [3, 28, 28]:
            tensor.tensor_shape.unknown_rank = True
    return PREDICT, request.SerializeToString(), ("INVALID_ARGUMENT",)


def wrong_dtype(generator: random.Random) -> Case:
    request = predict_request(images_of(1))
    request.inputs[contract.IMAGES].dtype = generator.choice([*range(4), *range(5, 33), 101, 125, 999, -1])
    return PREDICT, request.SerializeToString(), ("INVALID_ARGUMENT",)


def wrong_size(generator: random.Random) -> Case:
    request = predict_request(images_of(1))
    tensor = request.inputs[contract.IMAGES]
    size = generator.choice([1, 783, 785, 28 * 28 * 7])
    tensor.tensor_content = generator.randbytes(size)
    if generator.random() < 0.3:
        rows = generator.choice([1001, 10**6, 10**15])
        tensor.tensor_shape.dim[0].size = rows
        tensor.ClearField("tensor_content")
        tensor.int_val.extend([1] * generator.randrange(3))
    return PREDICT, request.SerializeToString(), ("INVALID_ARGUMENT",)


def wrong_names(generator: random.Random) -> Case:
    name = "".join(chr(generator.choice([generator.randrange(1, 128), 0xE9, 0x1F522])) for _ in range(20))
    name *= generator.choice([1, 1, 50])
    what = generator.choice(["model", "signature", "label", "version", "input", "filter"])
    request = predict_request(images_of(1))
    if what == "model":
        request.model_spec.name = name
    elif what == "signature":
        request.model_spec.signature_name = name
    elif what == "label":
        request.model_spec.version_label = name
    elif what == "version":
        request.model_spec.version.value = generator.choice(
            [-1, 0, 2, 2**63 - 1, -(2**63), generator.randrange(2, 2**62)]
        )
    elif what == "input":
        request.inputs[name].CopyFrom(request.inputs[contract.IMAGES])
    else:
        request.output_filter.append(name)
    codes = {"model": "NOT_FOUND", "version": "NOT_FOUND", "signature": "FAILED_PRECONDITION"}
    return PREDICT, request.SerializeToString(), (codes.get(what, "INVALID_ARGUMENT"),)


def wrong_picture(generator: random.Random) -> Case:
    header = generator.choice([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM"])
    request = pictures_request(header + generator.randbytes(generator.randrange(200)))
    return PREDICT, request.SerializeToString(), ("INVALID_ARGUMENT",)


def wrong_query(generator: random.Random) -> Case:
    field = "".join(chr(generator.randrange(32, 127)) for _ in range(12))
    if generator.random() < 0.5:
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=model_spec(), metadata_field=[field])
        return METADATA, request.SerializeToString(), ("INVALID_ARGUMENT",)
    status = get_model_status_pb2.GetModelStatusRequest(model_spec=model_spec(field))
    return STATUS, status.SerializeToString(), ("NOT_FOUND",)
