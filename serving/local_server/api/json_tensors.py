"""REST's Predict body -> checked inputs, and outputs -> JSON.

Row format: `{"instances": [...]}`, answered by `{"predictions": [...]}`, one value or object per row. Column format:
`{"inputs": ...}`, answered by `{"outputs": ...}`, one tensor or an object of tensors. Bytes are `{"b64": "..."}`, also in
an output whose name ends in `_bytes`.
"""

import base64
import binascii
import json
import math
import reprlib
from collections.abc import Mapping
from itertools import chain
from typing import Any

import grpc
import numpy as np

from serving.local_server.api.predict import Prepared
from serving.local_server.errors import StatusError, invalid_argument
from serving.local_server.model.servable import DEFAULT_SIGNATURE, LoadedSignature, Servable
from serving.local_server.model.tensors import MAX_RANK, SignatureTensor, numpy_type, type_name

ROW, COLUMN = "instances", "inputs"

_INT32 = np.iinfo(np.int32)
_INTEGER_RANGES: dict[str, np.iinfo] = {
    "int32": _INT32,
    "int16": _INT32,
    "int8": _INT32,
    "uint8": _INT32,  # narrower integers keep their low bits, as in TensorFlow
    "int64": np.iinfo(np.int64),
    "uint32": np.iinfo(np.uint32),
    "uint64": np.iinfo(np.uint64),
}

_CONSTANTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""The floats of the literals, recognised by identity: another infinity in a document is a number too large for a float,
such as 1e400. A `parse_float` that checks each number takes 80 % longer to parse."""


def parse_document(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    Raises:
        StatusError: INVALID_ARGUMENT; the body is no JSON object, or a string in it has a lone surrogate.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        text = body.decode("utf-8-sig")
        document = json.loads(text, parse_constant=_CONSTANTS.__getitem__)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()  # A lone surrogate is no text.
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deeply
        raise invalid_argument(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {_short(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """Return the `signature_name` of a request, "" for none. Raise StatusError if it is no string."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid_argument(
            f"JSON Value: {_short(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def prepare_json(servable: Servable, document: Mapping[str, Any]) -> Prepared:
    """Check a Predict request against the signature it names and convert its inputs.

    Raises:
        StatusError: INVALID_ARGUMENT for an unknown signature and for values that do not form its inputs; UNIMPLEMENTED
            for an input whose type JSON cannot carry.
    """
    name = signature_name(document)
    signature = servable.signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise invalid_argument(f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def')
    if not signature.inputs:
        raise invalid_argument(f"Failed to get input map for signature: {name or 'DEFAULT'}")
    if format_of(document) == ROW:
        values = _columns_of_rows(document[ROW], signature)
    else:
        values = _columns(document[COLUMN], signature)
    inputs = {alias: to_array(values[alias], tensor) for alias, tensor in signature.inputs.items()}
    return Prepared(signature, inputs, signature.outputs.keys())


def is_overflow(value: float) -> bool:
    """Return whether `value`, from `parse_document`, was written as a finite number that no float holds."""
    return abs(value) == math.inf and all(value is not constant for constant in _CONSTANTS.values())


def format_of(document: Mapping[str, Any]) -> str:
    """Return `ROW` or `COLUMN`. Raise StatusError if the request has neither or both."""
    if ROW in document and COLUMN in document:
        raise invalid_argument(
            f"JSON Value: {_short(document)} expecting only one of '{COLUMN}' or '{ROW}' keys to exist"
        )
    if ROW not in document and COLUMN not in document:
        raise invalid_argument(f"Missing '{COLUMN}' or '{ROW}' key")
    return ROW if ROW in document else COLUMN


def to_array(value: Any, tensor: SignatureTensor) -> np.ndarray:
    """Return nested lists of values as an array of the input's dtype.

    Raises:
        StatusError: INVALID_ARGUMENT for uneven lists and values of another type, UNIMPLEMENTED for an unsupported dtype.
    """
    shape: list[int] = []
    items = [value]
    while items and type(items[0]) is list:
        if {*map(type, items)} != {list}:
            raise invalid_argument(f"input {tensor.alias}: a value is at the level of lists, level {len(shape)}")
        sizes = {*map(len, items)}
        if len(sizes) > 1:
            raise invalid_argument(
                f"input {tensor.alias}: Encountered list at unexpected size: {max(sizes)} at level: {len(shape)} "
                f"expected size: {min(sizes)}"
            )
        shape += sizes
        items = [*chain.from_iterable(items)]
    if len(shape) > MAX_RANK:
        raise invalid_argument(f"input {tensor.alias}: lists are nested too deeply")
    if list in {*map(type, items)}:
        raise invalid_argument(f"input {tensor.alias}: Encountered list at unexpected level: {len(shape)}")
    return _leaves(items, tensor).reshape(shape)


def render_outputs(document: Mapping[str, Any], outputs: Mapping[str, np.ndarray]) -> str:
    """Return the response to `document`, in its format.

    Raises:
        StatusError: INVALID_ARGUMENT for outputs that the format or JSON cannot carry.
    """
    if format_of(document) == COLUMN:
        values = {alias: _to_json(alias, array) for alias, array in outputs.items()}
        return json.dumps({"outputs": values if len(values) > 1 else next(iter(values.values()))})
    sizes = set()
    for alias, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {alias} has no shape information")
        sizes.add(len(array))
    if len(sizes) > 1:
        raise invalid_argument(f"Tensors have inconsistent batch sizes: {sorted(sizes)}")
    columns = [_to_json(alias, array) for alias, array in outputs.items()]
    if len(columns) == 1:
        return json.dumps({"predictions": columns[0]})
    return json.dumps({"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True)]})


def decode_base64(value: Mapping[str, Any]) -> bytes:
    """Return the bytes of `{"b64": "..."}`. Raise StatusError for anything else."""
    if not is_base64(value):
        raise invalid_argument(f"JSON Value: {_short(value)} not formatted correctly for base64 data")
    # TensorFlow Serving ignores white space, such as the line breaks of `base64 FILE`.
    text = "".join(value["b64"].split())
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_argument("Unable to base64 decode") from error


def is_base64(value: Any) -> bool:
    """Return whether `value` has the form `{"b64": "..."}`."""
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def _columns_of_rows(rows: Any, signature: LoadedSignature) -> dict[str, list]:
    if not isinstance(rows, list):
        raise invalid_argument(f"JSON Value: {_short(rows)} Expecting '{ROW}' to be a list/array")
    if not rows:
        raise invalid_argument(f"No values in '{ROW}' array")
    objects = {type(row) is dict and not is_base64(row) for row in rows}
    if len(objects) > 1:
        raise invalid_argument(f"'{ROW}' mixes objects with values or lists")
    if objects == {False}:
        if len(signature.inputs) > 1:
            raise invalid_argument(
                f"{ROW} is a plain list, but expecting list of objects as multiple input tensors required"
            )
        return {next(iter(signature.inputs)): rows}
    for index, row in enumerate(rows):
        if row.keys() != signature.inputs.keys():
            raise invalid_argument(
                f"Failed to process element: {index} of '{ROW}' list. JSON object: {_short(row)} keys must be equal to: "
                f"{','.join(signature.inputs)}"
            )
    return {alias: [row[alias] for row in rows] for alias in signature.inputs}


def _columns(value: Any, signature: LoadedSignature) -> dict[str, Any]:
    if type(value) is not dict or is_base64(value):
        if len(signature.inputs) > 1:
            raise invalid_argument(
                f"{COLUMN} is a plain value/list, but expecting an object as multiple input tensors required"
            )
        return {next(iter(signature.inputs)): value}
    for alias in signature.inputs:
        if alias not in value:
            raise invalid_argument(f"Missing named input: {alias} in '{COLUMN}' object.")
    return value


def _leaves(items: list, tensor: SignatureTensor) -> np.ndarray:
    name = type_name(tensor.dtype)
    kinds = {*map(type, items)}
    if name == "string":
        return _string_leaves(items, kinds, tensor)
    if name == "bool":
        _check_kinds(items, kinds, {bool}, tensor)
        return np.array(items, np.bool_)
    if name in _INTEGER_RANGES:
        _check_kinds(items, kinds, {int}, tensor)
        limits = _INTEGER_RANGES[name]
        try:
            values = np.array(items, limits.dtype)
        except OverflowError as error:
            raise invalid_argument(f"input {tensor.alias}: a number is out of the range of {limits.dtype}") from error
        return values.astype(numpy_type(tensor.dtype))
    if name in ("float", "double"):
        return _float_leaves(items, kinds, tensor)
    raise StatusError(
        grpc.StatusCode.UNIMPLEMENTED, f"Conversion of JSON Values to type: {name} (input {tensor.alias})"
    )


def _string_leaves(items: list, kinds: set[type], tensor: SignatureTensor) -> np.ndarray:
    _check_kinds(items, kinds, {str, dict}, tensor)
    array = np.empty(len(items), object)
    array[:] = [item.encode() if type(item) is str else decode_base64(item) for item in items]
    return array


def _float_leaves(items: list, kinds: set[type], tensor: SignatureTensor) -> np.ndarray:
    _check_kinds(items, kinds, {int, float}, tensor)
    dtype = np.dtype(numpy_type(tensor.dtype))
    largest_integer = 2 ** (np.finfo(dtype).nmant + 1) - 1
    try:
        values = np.array(items, np.float64)
    except OverflowError as error:
        raise invalid_argument(f"input {tensor.alias}: a number is out of the range of {dtype}") from error
    large = np.abs(values) > largest_integer
    if large.any():
        for item in [items[index] for index in np.flatnonzero(large)]:
            exact = largest_integer if type(item) is int and abs(item) < 2**64 else float(np.finfo(dtype).max)
            if is_overflow(item) or (abs(item) != np.inf and abs(item) > exact):
                raise invalid_argument(f"Cannot convert JSON value: {item} to {dtype} without loss of precision.")
    return values.astype(dtype)


def _check_kinds(items: list, kinds: set[type], expected: set[type], tensor: SignatureTensor) -> None:
    if kinds <= expected:
        return
    item = next(item for item in items if type(item) not in expected)
    raise invalid_argument(
        f"JSON Value: {_short(item)} Type: {type(item).__name__} is not of expected type: {type_name(tensor.dtype)} "
        f"(input {tensor.alias})"
    )


def _to_json(alias: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        as_bytes = alias.endswith("_bytes")
        flat = [_string_to_json(value, as_bytes) for value in array.ravel()]
        values = np.empty(len(flat), object)
        values[:] = flat
        return values.reshape(array.shape).tolist()
    if array.dtype == np.float32:
        # The shortest decimals that give the same float32, not the 17 digits of its double.
        return array.astype("U").astype(np.float64).tolist()
    if array.dtype.kind in "biu" or array.dtype == np.float64:
        return array.tolist()
    raise invalid_argument(f"Failed to write JSON value for tensor type: {array.dtype}")


def _string_to_json(value: Any, as_bytes: bool) -> Any:
    content = value if isinstance(value, bytes) else str(value).encode()
    return {"b64": base64.b64encode(content).decode()} if as_bytes else content.decode(errors="replace")


def _short(value: Any) -> str:
    return reprlib.repr(value)
