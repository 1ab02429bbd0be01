"""Classify, Regress and MultiInference: tf.train.Examples -> classes and values.

Their signatures have one string input named `inputs`: serialized Examples. Classification has the outputs `classes`
(string [N, C]) and `scores` (float32 [N, C]) or one of them; regression has `outputs` (float32 [N] or [N, 1]). The method
name of the signature is not checked, which is TF Serving's default.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import grpc
import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import classification_pb2, inference_pb2, input_pb2, regression_pb2

from serving.local_server.errors import StatusError, invalid_argument
from serving.local_server.model.servable import DEFAULT_SIGNATURE, LoadedSignature, Servable

INPUTS, CLASSES, SCORES, OUTPUTS = "inputs", "classes", "scores", "outputs"
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def serialize_examples(given: input_pb2.Input) -> np.ndarray:
    """Return the serialized examples, bytes [N]. The context's features are added to every example.

    Raises:
        StatusError: INVALID_ARGUMENT; there is no example.
    """
    context = b""
    examples = given.example_list.examples
    if given.WhichOneof("kind") == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
        examples = given.example_list_with_context.examples
    if not examples:
        raise invalid_argument("Input is empty.")
    serialized = np.empty(len(examples), object)
    serialized[:] = [context + example.SerializeToString() for example in examples]  # joined bytes are merged messages
    return serialized


def classification_signature(servable: Servable, name: str) -> LoadedSignature:
    """Return a signature with the inputs and outputs of a classification.

    Raises:
        StatusError: INVALID_ARGUMENT; there is no such signature.
    """
    signature = _signature(servable, name)
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if not {CLASSES, SCORES} & set(signature.outputs):
        raise invalid_argument(f'Expected classification signature outputs to contain "{CLASSES}" or "{SCORES}"')
    return signature


def regression_signature(servable: Servable, name: str) -> LoadedSignature:
    """Return a signature with the inputs and outputs of a regression.

    Raises:
        StatusError: INVALID_ARGUMENT; there is no such signature.
    """
    signature = _signature(servable, name)
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    if OUTPUTS not in signature.outputs:
        raise invalid_argument(f'Expected a regression signature output "{OUTPUTS}"')
    return signature


def classification_result(outputs: Mapping[str, np.ndarray], count: int) -> classification_pb2.ClassificationResult:
    """Return labels and scores of every example.

    Raises:
        StatusError: INVALID_ARGUMENT; an output has an unexpected type or shape.
    """
    columns = {alias: outputs[alias] for alias in (CLASSES, SCORES) if alias in outputs}
    for alias, array in columns.items():
        if array.ndim != 2 or len(array) != count:
            raise invalid_argument(f"Expected {alias} of shape [{count} num_classes] but got {list(array.shape)}")
        if array.dtype != {CLASSES: np.dtype(object), SCORES: np.dtype(np.float32)}[alias]:
            raise invalid_argument(f"The output {alias} has dtype {array.dtype}")
    if len({array.shape for array in columns.values()}) != 1:
        raise invalid_argument("Tensors class and score should match in dim_size(1)")
    result = classification_pb2.ClassificationResult()
    for row in range(count):
        classes = result.classifications.add().classes
        for column in range(next(iter(columns.values())).shape[1]):
            entry = classes.add()
            if CLASSES in columns:
                label = columns[CLASSES][row, column]
                entry.label = label.decode(errors="replace") if isinstance(label, bytes) else label
            if SCORES in columns:
                entry.score = columns[SCORES][row, column]
    return result


def regression_result(outputs: Mapping[str, np.ndarray], count: int) -> regression_pb2.RegressionResult:
    """Return the value of every example.

    Raises:
        StatusError: INVALID_ARGUMENT; the output has an unexpected type or shape.
    """
    values = outputs[OUTPUTS]
    if values.shape not in ((count,), (count, 1)):
        raise invalid_argument(f"Expected an output of shape [{count}] or [{count}, 1] but got {list(values.shape)}")
    if values.dtype != np.float32:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT. Got: {values.dtype}")
    result = regression_pb2.RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add(value=value)
    return result


@dataclass(frozen=True)
class Task:
    """One signature of a MultiInference request."""

    signature: LoadedSignature
    method: str

    def add_result(self, result: inference_pb2.InferenceResult, outputs: Mapping[str, np.ndarray], count: int) -> None:
        """Write the outputs into `result`. Raise StatusError as the functions above."""
        if self.method == CLASSIFY:
            result.classification_result.CopyFrom(classification_result(outputs, count))
        else:
            result.regression_result.CopyFrom(regression_result(outputs, count))


def multi_inference_tasks(servable: Servable, request: inference_pb2.MultiInferenceRequest) -> list[Task]:
    """Return the tasks of `request`.

    Raises:
        StatusError: INVALID_ARGUMENT for an empty or second model name, an unknown, repeated or unsuitable signature, or
            different input tensors; UNIMPLEMENTED for another method than classify and regress.
    """
    tasks: list[Task] = []
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        select = {CLASSIFY: classification_signature, REGRESS: regression_signature}.get(task.method_name)
        if select is None:
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        signature = select(servable, task.model_spec.signature_name)
        if signature in [known.signature for known in tasks]:
            raise invalid_argument(f"Duplicate evaluation of signature: {signature.name}")
        tasks.append(Task(signature, task.method_name))
    if len({task.signature.inputs[INPUTS].tensor_name for task in tasks}) > 1:
        raise invalid_argument("Input tensor must be the same for all Signatures.")
    return tasks


def _signature(servable: Servable, name: str) -> LoadedSignature:
    signature = servable.signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {name or DEFAULT_SIGNATURE}")
    if list(signature.inputs) != [INPUTS]:
        raise invalid_argument(f'Expected one input Tensor "{INPUTS}", found {list(signature.inputs)}')
    if signature.inputs[INPUTS].dtype != types_pb2.DT_STRING:
        raise invalid_argument(f'The input Tensor "{INPUTS}" takes no serialized Examples')
    return signature
