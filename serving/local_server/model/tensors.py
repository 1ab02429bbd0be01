"""TensorProto <-> NumPy, checked before memory is allocated.

TensorFlow's own parser trusts the shape in a message: a 20-byte request for [10**9, 28, 28] makes it allocate 730 GiB.
Here the size is compared with a limit first.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2

from serving.local_server.errors import invalid_argument

_FIELDS: dict[int, tuple[str, np.dtype]] = {
    types_pb2.DT_FLOAT: ("float_val", np.dtype("<f4")),
    types_pb2.DT_DOUBLE: ("double_val", np.dtype("<f8")),
    types_pb2.DT_INT32: ("int_val", np.dtype("<i4")),
    types_pb2.DT_UINT8: ("int_val", np.dtype("u1")),
    types_pb2.DT_INT16: ("int_val", np.dtype("<i2")),
    types_pb2.DT_INT8: ("int_val", np.dtype("i1")),
    types_pb2.DT_UINT16: ("int_val", np.dtype("<u2")),
    types_pb2.DT_INT64: ("int64_val", np.dtype("<i8")),
    types_pb2.DT_UINT32: ("uint32_val", np.dtype("<u4")),
    types_pb2.DT_UINT64: ("uint64_val", np.dtype("<u8")),
    types_pb2.DT_BOOL: ("bool_val", np.dtype("?")),
    types_pb2.DT_STRING: ("string_val", np.dtype(object)),
}
"""Each dtype's typed field on the wire and its NumPy dtype. Others (quantised, resource, ...) are rejected."""

MAX_RANK = 64
"""NumPy's limit; TensorFlow's is 254."""

_DTYPES = {dtype: number for number, (_, dtype) in _FIELDS.items()}
_PACKED_FLOAT_FIELD = {np.dtype("<f4"): b"\x2a", np.dtype("<f8"): b"\x32"}
"""Field number and wire type of `float_val` (5) and `double_val` (6): packed, they are the array's own bytes."""


@dataclass(frozen=True)
class SignatureTensor:
    """One input or output of a signature."""

    alias: str
    """The name that requests and responses use."""
    tensor_name: str
    """The name in the graph."""
    dtype: int
    """A `tensorflow.DataType`."""
    shape: tuple[int | None, ...] | None
    """None for an unknown size; None instead of the tuple for an unknown rank."""

    @property
    def has_batch_dimension(self) -> bool:
        """Whether the first size is unknown, so that requests can be joined along it."""
        return bool(self.shape) and self.shape[0] is None  # type: ignore[index]


def decode(proto: tensor_pb2.TensorProto, tensor: SignatureTensor, *, max_bytes: int) -> np.ndarray:
    """Return the array that `proto` holds for an input; read-only if it shares the message's bytes.

    The shape is not compared with the signature's, as in TF Serving: the graph accepts or rejects it.

    Args:
        proto: Values in `tensor_content` or in the typed field of their dtype. If there are fewer typed values than
            elements, the last one is repeated; without values all elements are zero, as in TensorFlow.
        tensor: The input in the signature.
        max_bytes: Most bytes of the array.

    Raises:
        StatusError: INVALID_ARGUMENT for a wrong dtype, an impossible shape, too many bytes, or bytes that do not fit the
            shape.
    """
    if proto.dtype in _FIELDS and proto.dtype != tensor.dtype:
        raise invalid_argument(
            f"input {tensor.alias}: expects {type_name(tensor.dtype)} but {type_name(proto.dtype)} is provided"
        )
    try:
        return parse_tensor(proto, max_bytes=max_bytes)
    except ValueError as error:
        raise invalid_argument(f"tensor parsing error: {tensor.alias} ({error})") from error


def parse_tensor(proto: tensor_pb2.TensorProto, *, max_bytes: int = 2**31 - 1) -> np.ndarray:
    """Return the array that `proto` holds. Raise ValueError if `proto` is no tensor or needs more than `max_bytes`."""
    if proto.dtype not in _FIELDS:
        raise ValueError(f"dtype {proto.dtype} is not supported")
    shape = _parse_shape(proto.tensor_shape)
    size = math.prod(shape)
    field, dtype = _FIELDS[proto.dtype]
    if size * dtype.itemsize > max_bytes:
        raise ValueError(f"shape {list(shape)} needs more than {max_bytes} bytes")
    if proto.dtype == types_pb2.DT_STRING:
        return _strings(proto, size).reshape(shape)
    if proto.tensor_content and size:
        return _from_bytes(proto.tensor_content, dtype, size).reshape(shape)
    return _from_values(getattr(proto, field), dtype, size).reshape(shape)


def encode(array: np.ndarray, proto: tensor_pb2.TensorProto) -> None:
    """Write `array` into the empty `proto`, with typed fields, which are TF Serving's default."""
    proto.CopyFrom(_without_values(array.dtype, array.shape))
    if array.dtype in _PACKED_FLOAT_FIELD and array.size:
        proto.MergeFromString(_PACKED_FLOAT_FIELD[array.dtype] + _varint(array.nbytes) + array.tobytes())
    else:
        getattr(proto, _FIELDS[proto.dtype][0]).extend(_values(array))


def type_name(dtype: int) -> str:
    """Return TensorFlow's name of a `tensorflow.DataType`, such as "uint8"."""
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()


def numpy_type(dtype: int) -> np.dtype | None:
    """Return the NumPy dtype of a `tensorflow.DataType`, or None if it is not supported."""
    return _FIELDS[dtype][1] if dtype in _FIELDS else None


@functools.lru_cache(maxsize=1024)
def _without_values(dtype: np.dtype, shape: tuple[int, ...]) -> tensor_pb2.TensorProto:
    # Built once per shape: a copy costs a fifth.
    if dtype not in _DTYPES:
        raise invalid_argument(f"an output of dtype {dtype} cannot be encoded")
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    return tensor_pb2.TensorProto(dtype=_DTYPES[dtype], tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dims))


def _parse_shape(proto: tensor_shape_pb2.TensorShapeProto) -> tuple[int, ...]:
    shape = tuple(dim.size for dim in proto.dim[: MAX_RANK + 1])
    if proto.unknown_rank or len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise ValueError(
            "its shape is not fully defined" if len(shape) <= MAX_RANK else f"it has more than {MAX_RANK} axes"
        )
    return shape


def _from_bytes(content: bytes, dtype: np.dtype, size: int) -> np.ndarray:
    if len(content) != size * dtype.itemsize:
        raise ValueError(f"tensor_content has {len(content)} bytes, its shape needs {size * dtype.itemsize}")
    if dtype == np.bool_:  # every byte but 0 is true; NumPy would keep a 2 as an invalid bool
        return np.frombuffer(content, np.uint8) != 0
    return np.frombuffer(content, dtype)


def _from_values(values, dtype: np.dtype, size: int) -> np.ndarray:
    # int_val also carries narrower integers; they keep their low bits, as in TensorFlow.
    given = np.array(values[:size], np.int64 if dtype.kind in "iu" and dtype.itemsize < 8 else dtype).astype(dtype)
    array = np.empty(size, dtype)
    array[: len(given)] = given
    array[len(given) :] = given[-1] if len(given) else 0
    return array


def _strings(proto: tensor_pb2.TensorProto, size: int) -> np.ndarray:
    if proto.tensor_content and size:
        raise ValueError("strings belong in string_val")
    given = list(proto.string_val[:size])
    array = np.empty(size, object)
    array[: len(given)] = given
    array[len(given) :] = given[-1] if given else b""
    return array


def _values(array: np.ndarray) -> list:
    values = array.ravel().tolist()
    if array.dtype == object:
        return [value if isinstance(value, bytes) else str(value).encode() for value in values]
    return values


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
