"""REST's Classify and Regress bodies -> tf.train.Examples, and their results -> JSON.

`{"context": {...}, "examples": [{"x": 1.5, "words": ["a", {"b64": "..."}]}, ...]}` is answered by `{"results": [...]}`: a
list of [label, score] pairs for each example of a classification, a value for each example of a regression.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from serving.local_server.api.json_tensors import decode_base64, is_base64, is_overflow
from serving.local_server.errors import invalid_argument

_LIST_OF = {bool: "int64_list", int: "int64_list", float: "float_list", str: "bytes_list", dict: "bytes_list"}


def parse_examples(document: Mapping[str, Any]) -> input_pb2.Input:
    """Return the examples of a Classify or Regress request.

    Raises:
        StatusError: INVALID_ARGUMENT; there is no example, or a feature is no list of one kind of values.
    """
    examples = document.get("examples")
    if not isinstance(examples, list) or not examples:
        raise invalid_argument("'examples' must be a list with at least one example")
    parsed = [_example(value) for value in examples]
    if "context" not in document:
        return input_pb2.Input(example_list=input_pb2.ExampleList(examples=parsed))
    context = _example(document["context"])
    return input_pb2.Input(example_list_with_context=input_pb2.ExampleListWithContext(context=context, examples=parsed))


def render_classifications(result: classification_pb2.ClassificationResult) -> str:
    """Return [label, score] pairs for each example."""
    rows = [[[entry.label, _shortest(entry.score)] for entry in row.classes] for row in result.classifications]
    return json.dumps({"results": rows})


def render_regressions(result: regression_pb2.RegressionResult) -> str:
    """Return the value of each example."""
    return json.dumps({"results": [_shortest(entry.value) for entry in result.regressions]})


def _example(value: Any) -> example_pb2.Example:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {type(value).__name__}")
    features = {name: _feature(name, content) for name, content in value.items()}
    return example_pb2.Example(features=feature_pb2.Features(feature=features))


def _feature(name: str, content: Any) -> feature_pb2.Feature:
    values = content if isinstance(content, list) else [content]
    if any(type(value) not in _LIST_OF or (type(value) is dict and not is_base64(value)) for value in values):
        raise invalid_argument(f"Feature: {name} has element with unexpected JSON type")
    lists = {_LIST_OF[type(value)] for value in values}
    if len(lists) > 1:
        raise invalid_argument(f"Unexpected element type in feature: {name}")
    feature = feature_pb2.Feature()
    for value in values:
        try:
            getattr(feature, lists.copy().pop()).value.append(_feature_value(value))
        except ValueError as error:
            raise invalid_argument(f"Feature: {name} has a number out of range: {value}") from error
    return feature


def _feature_value(value: Any) -> Any:
    if type(value) is dict:
        return decode_base64(value)
    if type(value) is str:
        return value.encode()
    if type(value) is float and (is_overflow(value) or float(np.finfo(np.float32).max) < abs(value) < np.inf):
        raise ValueError("too large for a float")
    return value


def _shortest(value: float) -> float:
    return float(str(np.float32(value)))
