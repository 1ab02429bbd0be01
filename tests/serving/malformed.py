"""Malformed gRPC requests and REST bodies, each with its right codes. The seed determines them all."""

import json
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

ANY_CODE = ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION")
"""The codes of a request that was damaged at random and still parses."""


@dataclass(frozen=True)
class Malformed:
    kind: str
    method: str
    content: bytes
    codes: Collection[str]


def malformed_requests(seed: int) -> Iterator[Malformed]:
    """Yield requests without end; the same ones for the same seed."""
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
    return ANY_CODE if request.HasField("model_spec") else ("INVALID_ARGUMENT",)


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
        rows = generator.choice([10**6, 10**15])
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


def malformed_bodies(seed: int) -> Iterator[bytes]:
    """Yield Predict bodies without end; TensorFlow Serving rejects each with 400."""
    generator = random.Random(seed)
    kinds = [random_body, truncated_body, wrong_value, wrong_shape_body, wrong_keys, wrong_base64, deep_body]
    while True:
        yield generator.choice(kinds)(generator)


def random_body(generator: random.Random) -> bytes:
    return b"\xff" + generator.randbytes(generator.choice([1, 10, 100, 1000]))


def truncated_body(generator: random.Random) -> bytes:
    body = json.dumps({"instances": images_of(generator.randrange(10)).tolist()}).encode()
    return body[: generator.randrange(len(body))]


def wrong_value(generator: random.Random) -> bytes:
    images = images_of(1, 2).tolist()
    value = generator.choice(
        ["7", "", 7.5, True, None, {}, {"b64": "AA=="}, 2**31, -(2**70), 1e300, [], [1], float("nan")]
    )
    images[generator.randrange(2)][generator.randrange(28)][generator.randrange(28)] = value
    return json.dumps({generator.choice(["instances", "inputs"]): images}).encode()


def wrong_shape_body(generator: random.Random) -> bytes:
    shape = [generator.choice([1, 2, 27, 28]) for _ in range(generator.randrange(5))]
    if len(shape) == 3 and shape[1:] == [28, 28]:
        shape[1] = 27
    value: object = generator.randrange(256)
    for size in reversed(shape):
        value = [value] * size
    return json.dumps({"inputs": value}).encode()


def wrong_keys(generator: random.Random) -> bytes:
    image = images_of(1)[0].tolist()
    name = "".join(chr(generator.randrange(32, 127)) for _ in range(8))
    documents: list[object] = [
        {},
        [image],
        generator.random(),
        {name: [image]},
        {"instances": [image], "inputs": [image]},
        {"instances": [{name: image}]},
        {"instances": [{contract.IMAGES: image}, image]},
        {"inputs": {name: [image]}},
        {"signature_name": name, "instances": [image]},
        {"signature_name": generator.choice([7, None, [], True]), "instances": [image]},
    ]
    return json.dumps(generator.choice(documents)).encode()


def wrong_base64(generator: random.Random) -> bytes:
    value = generator.choice(
        [{"b64": "\u00e9"}, {"b64": "A"}, {"b64": 7}, {"b64": "AAAA", "more": 1}, {"b64": "bm8gcGljdHVyZQ=="}]
    )
    return json.dumps({"signature_name": contract.PICTURES, "instances": [value]}).encode()


def deep_body(generator: random.Random) -> bytes:
    depth = generator.choice([65, 500, 5000, 100_000])
    return b'{"inputs": ' + b"[" * depth + b"]" * depth + b"}"
