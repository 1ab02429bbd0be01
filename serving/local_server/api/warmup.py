"""Warm-up: replays recorded requests while a version loads, so that lazy initialisation does not delay the first request.

As in TensorFlow Serving, the requests are in `assets.extra/tf_serving_warmup_requests`, an uncompressed TFRecord file of
`PredictionLog`. One bad record fails the version. The model name and version in a record are ignored.
"""

from pathlib import Path

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from serving.local_server.api.predict import Limits, prepare
from serving.local_server.errors import StatusError, invalid_argument
from serving.local_server.model.servable import Servable

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000


def replay_warmup(servable: Servable, limits: Limits) -> int:
    """Runs every recorded request and returns their number; 0 if there is no file.

    Raises:
        StatusError: INVALID_ARGUMENT for more than 1000 records or one that does not parse, DATA_LOSS for a damaged file,
            UNIMPLEMENTED for a record that is no Predict request, else the error of the request itself.
    """
    path = servable.path / WARMUP_FILE
    if not path.exists():
        return 0
    number = 0
    try:
        for number, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator(), start=1):
            _replay(servable, record, limits, f"warmup record {number} of {path}")
            if number > MAX_RECORDS:
                raise invalid_argument(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
    except tf.errors.OpError as error:
        message = f"{error.message}. Please verify your warmup data is in TFRecord format."
        raise StatusError(grpc.StatusCode.DATA_LOSS, message) from error
    return number


def _replay(servable: Servable, record: bytes, limits: Limits, where: str) -> None:
    try:
        log = prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        raise invalid_argument(f"Failed to parse {where}") from error
    kind = log.WhichOneof("log_type")
    if kind is None:
        return
    if kind != "predict_log":
        raise StatusError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind} ({where})")
    try:
        prepared = prepare(servable, log.predict_log.request, limits)
        servable.run(prepared.signature, prepared.inputs)
    except StatusError as error:
        raise StatusError(error.code, f"{where}: {error.message}") from error
