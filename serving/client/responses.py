"""Response messages to dataclasses. Nothing here waits for the network.

TensorFlow Serving fills the typed fields (`float_val`, ...) or, with one of its flags, `tensor_content`: both are decoded.
A response that breaks the contract raises a `ResponseError` and never becomes a prediction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

import serving.client.wire_pb2 as wire
from serving import contract
from serving.client.errors import STATUS_NAMES, ResponseError
from serving.client.results import (
    UNKNOWN,
    ModelMetadata,
    PicturePredictions,
    Predictions,
    Signature,
    TensorSpec,
    VersionStatus,
)

_PredictionsT = TypeVar("_PredictionsT", bound=Predictions)
_MessageT = TypeVar("_MessageT", bound=Message)
_Outputs = Mapping[str, tuple[int, tuple[int, ...]]]

_OUTPUTS: _Outputs = {
    contract.DIGIT: (wire.DT_INT64, ()),
    contract.CONFIDENCE: (wire.DT_FLOAT, ()),
    contract.PROBABILITIES: (wire.DT_FLOAT, (contract.CLASSES,)),
}
"""The type of each output, and its shape for one image."""

_PICTURE_OUTPUTS = {**_OUTPUTS, contract.NORMALIZED: (wire.DT_UINT8, contract.IMAGE_SHAPE)}
"""The same for the signature for pictures."""

_LATER_PICTURE_OUTPUTS: Mapping[str, tuple[int, tuple[int, ...], Any]] = {
    contract.PROBLEM: (wire.DT_STRING, (), ""),
    contract.FOUND: (wire.DT_INT64, (), UNKNOWN),
    contract.BOX: (wire.DT_FLOAT, (4,), 0.0),
}
"""Outputs that versions published earlier lack: type, shape for one picture, and the value that stands in for them."""

_FIELDS: dict[int, tuple[np.dtype, str]] = {
    wire.DT_FLOAT: (np.dtype("<f4"), "float_val"),
    wire.DT_INT64: (np.dtype("<i8"), "int64_val"),
    wire.DT_UINT8: (np.dtype("u1"), "int_val"),
    wire.DT_STRING: (np.dtype(object), "string_val"),
}
"""By type: the elements in `tensor_content`, and the typed field that holds them otherwise."""


def decode_predictions(response: bytes, count: int) -> Predictions:
    """Return the predictions for `count` images.

    Raises:
        ResponseError: if the response does not hold the contract's outputs for so many images.
    """
    return Predictions(**_decode_outputs(_parse(wire.PredictResponse, response), _OUTPUTS, count))


def decode_picture_predictions(response: bytes, count: int) -> PicturePredictions:
    """Return the predictions for `count` pictures; raise as `decode_predictions` does."""
    message = _parse(wire.PredictResponse, response)
    outputs, stand_ins = dict(_PICTURE_OUTPUTS), {}
    for name, (dtype, shape, value) in _LATER_PICTURE_OUTPUTS.items():
        if name in message.outputs:
            outputs[name] = (dtype, shape)
        else:
            stand_ins[name] = np.full((count, *shape), value, _FIELDS[dtype][0])
    return PicturePredictions(**_decode_outputs(message, outputs, count), **stand_ins)


def _decode_outputs(response: wire.PredictResponse, outputs: _Outputs, count: int) -> dict[str, np.ndarray]:
    if missing := outputs.keys() - response.outputs.keys():
        raise ResponseError(f"the response has no {sorted(missing)}; it has {sorted(response.outputs)}")
    arrays = {
        name: _decode_tensor(name, response.outputs[name], dtype, (count, *shape))
        for name, (dtype, shape) in outputs.items()
    }
    return {**arrays, "version": np.full(count, response.model_spec.version.value, np.int64)}


def _decode_tensor(name: str, tensor: wire.TensorProto, dtype: int, shape: tuple[int, ...]) -> np.ndarray:
    given = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if (tensor.dtype, given) != (dtype, shape):
        expected = f"{_dtype_name(dtype)} {list(shape)}"
        raise ResponseError(f"{name} must be {expected}; the response has {_dtype_name(tensor.dtype)} {list(given)}")
    elements = _decode_elements(tensor, math.prod(shape))
    if len(elements) != math.prod(shape):
        raise ResponseError(f"{name} must hold {math.prod(shape)} elements; the response has {len(elements)}")
    return elements.reshape(shape)


def _decode_elements(tensor: wire.TensorProto, count: int) -> np.ndarray:
    dtype, field = _FIELDS[tensor.dtype]
    if tensor.dtype == wire.DT_STRING:
        return _decode_strings(tensor, count)
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype, count=len(tensor.tensor_content) // dtype.itemsize)
    values = np.array(getattr(tensor, field))
    elements = values.astype(dtype)
    if values.dtype.kind == "i" and (elements != values).any():  # uint8 travels as int32
        raise ResponseError(f"{field} holds values outside {_dtype_name(tensor.dtype)}")
    # A typed field may end early: its last element then stands for all missing ones (as in tf.make_ndarray).
    return np.pad(elements, (0, max(0, count - len(elements))), mode="edge") if len(elements) else elements


def _decode_strings(tensor: wire.TensorProto, count: int) -> np.ndarray:
    strings = list(tensor.string_val)
    if tensor.tensor_content:  # the lengths of all strings as varints, then their bytes
        lengths, rest = _read_varints(tensor.tensor_content, count)
        ends = np.cumsum(lengths)
        strings = [rest[end - length : end] for length, end in zip(lengths, ends, strict=True)]
    strings += strings[-1:] * (count - len(strings))
    return np.array([string.decode(errors="replace") for string in strings], object)


def _read_varints(content: bytes, count: int) -> tuple[list[int], bytes]:
    numbers, number, shift = [], 0, 0
    for position, byte in enumerate(content):
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
            if len(numbers) == count:
                return numbers, content[position + 1 :]
    raise ResponseError(f"tensor_content must hold {count} strings; it has {len(content)} bytes")


def join(parts: list[_PredictionsT]) -> _PredictionsT:
    """Join the predictions of all chunks, in order."""
    if len(parts) == 1:
        return parts[0]
    names = [field.name for field in fields(parts[0])]
    return type(parts[0])(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def decode_status(response: bytes) -> tuple[VersionStatus, ...]:
    """Return one entry per version, newest first."""
    statuses = [
        VersionStatus(
            version=entry.version,
            state=_enum_name(wire.ModelVersionStatus.State, entry.state),
            error_code=STATUS_NAMES.get(entry.status.error_code, str(entry.status.error_code)),
            error_message=entry.status.error_message,
        )
        for entry in _parse(wire.GetModelStatusResponse, response).model_version_status
    ]
    return tuple(sorted(statuses, key=lambda status: status.version, reverse=True))


def decode_metadata(content: bytes) -> ModelMetadata:
    """Return the signatures, unpacked from the response's Any."""
    response = _parse(wire.GetModelMetadataResponse, content)
    if "signature_def" not in response.metadata:
        raise ResponseError(f"the response has no 'signature_def'; it has {sorted(response.metadata)}")
    # Any.Unpack would compare full names, and our message is in a package of its own.
    signatures = _parse(wire.SignatureDefMap, response.metadata["signature_def"].value).signature_def
    return ModelMetadata(
        name=response.model_spec.name,
        version=response.model_spec.version.value,
        signatures={
            name: Signature(inputs=_tensor_specs(signature.inputs), outputs=_tensor_specs(signature.outputs))
            for name, signature in sorted(signatures.items())
        },
    )


def _parse(message_type: type[_MessageT], content: bytes) -> _MessageT:
    try:
        return message_type.FromString(content)
    except DecodeError as error:
        raise ResponseError(f"the response is not a {message_type.__name__} message") from error


def _tensor_specs(tensors: Mapping[str, wire.TensorInfo]) -> dict[str, TensorSpec]:
    return {name: _tensor_spec(info) for name, info in sorted(tensors.items())}


def _tensor_spec(info: wire.TensorInfo) -> TensorSpec:
    shape = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(dtype=_dtype_name(info.dtype), shape=None if info.tensor_shape.unknown_rank else shape)


def _dtype_name(dtype: int) -> str:
    return _enum_name(wire.DataType, dtype)


def _enum_name(enum: Any, number: int) -> str:
    return enum.Name(number) if number in enum.values() else str(number)
