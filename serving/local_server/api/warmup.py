"""Warm-up: replays recorded requests while a version loads, so that lazy initialisation does not delay the first request.

As in TensorFlow Serving, the requests are in `assets.extra/tf_serving_warmup_requests`, an uncompressed TFRecord file of
`PredictionLog`. One bad record fails the version. The model name and version in a record are ignored.
"""

from pathlib import Path

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

import serving.local_server.api.examples as examples
from serving.local_server.api.predict import prepare
from serving.local_server.errors import StatusError, invalid_argument
from serving.local_server.model.servable import Servable

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000


def replay_warmup(servable: Servable, *, max_tensor_bytes: int) -> int:
    """Run every recorded request and return their number; 0 if there is no file.

    Raises:
        StatusError: INVALID_ARGUMENT for more than 1000 records or one that does not parse, DATA_LOSS for a damaged file,
            UNIMPLEMENTED for a SessionRun record, else the error of the request itself.
    """
    path = servable.path / WARMUP_FILE
    if not path.exists():
        return 0
    number = 0
    try:
        for number, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator(), start=1):
            _replay(servable, record, max_tensor_bytes, f"warmup record {number} of {path}")
            if number > MAX_RECORDS:
                raise invalid_argument(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
    except tf.errors.OpError as error:
        message = f"{error.message}. Please verify your warmup data is in TFRecord format."
        raise StatusError(grpc.StatusCode.DATA_LOSS, message) from error
    return number


def _replay(servable: Servable, record: bytes, max_tensor_bytes: int, where: str) -> None:
    try:
        log = prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        raise invalid_argument(f"Failed to parse {where}") from error
    try:
        _run(servable, log, max_tensor_bytes)
    except StatusError as error:
        raise StatusError(error.code, f"{where}: {error.message}") from error


def _run(servable: Servable, log: prediction_log_pb2.PredictionLog, max_tensor_bytes: int) -> None:
    kind = log.WhichOneof("log_type")
    if kind is None:
        return
    if kind == "predict_log":
        prepared = prepare(servable, log.predict_log.request, max_tensor_bytes=max_tensor_bytes)
        servable.run(prepared.signature, prepared.inputs)
        return
    if kind == "classify_log":
        request = log.classify_log.request
        signatures = [examples.classification_signature(servable, request.model_spec.signature_name)]
    elif kind == "regress_log":
        request = log.regress_log.request
        signatures = [examples.regression_signature(servable, request.model_spec.signature_name)]
    elif kind == "multi_inference_log":
        request = log.multi_inference_log.request
        signatures = [task.signature for task in examples.multi_inference_tasks(servable, request)]
    else:
        raise StatusError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
    inputs = {examples.INPUTS: examples.serialize_examples(request.input)}
    for signature in signatures:
        servable.run(signature, inputs)
