"""A gRPC server on loopback whose responses a test scripts, in the API package's messages, broken ones included."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving import contract

NOT_A_PICTURE, NO_DIGIT, TWO_DIGITS = b"not a picture", b"blank", b"seventy-two"
"""Files that begin with these get a problem, and `found` 0 and 2."""

Handler = Callable[[object, grpc.ServicerContext], object]


def predict_response(request: predict_pb2.PredictRequest, *, version: int = 1) -> predict_pb2.PredictResponse:
    """Return the contract's outputs; an image's digit is its first pixel modulo ten, a picture's its first byte."""
    if request.model_spec.signature_name == contract.PICTURES:
        return pictures_response(request.inputs[contract.ENCODED].string_val, version=version)
    digits = tf.make_ndarray(request.inputs[contract.IMAGES])[:, 0, 0].astype(np.int64) % contract.CLASSES
    return digits_response(digits, version=version)


def pictures_response(encoded: Sequence[bytes], *, version: int = 1) -> predict_pb2.PredictResponse:
    """Return the contract's outputs for these files; `normalized` is a file's first byte, everywhere.

    A file that begins with `NOT_A_PICTURE` gets a problem, and `found` is 1 for all but `NO_DIGIT` and `TWO_DIGITS`.
    """
    is_bad = np.array([picture.startswith(NOT_A_PICTURE) for picture in encoded])
    starts = np.array([picture[0] for picture in encoded], np.uint8)
    response = digits_response(starts.astype(np.int64) % contract.CLASSES, version=version)
    normalized = np.broadcast_to(starts[:, None, None], (len(starts), *contract.IMAGE_SHAPE))
    digits = tf.make_ndarray(response.outputs[contract.DIGIT])
    response.outputs[contract.DIGIT].CopyFrom(tf.make_tensor_proto(np.where(is_bad, -1, digits)))
    response.outputs[contract.NORMALIZED].CopyFrom(tf.make_tensor_proto(normalized))
    problems = np.where(is_bad, "cannot be decoded; expected PNG", "")
    response.outputs[contract.PROBLEM].CopyFrom(tf.make_tensor_proto(problems))
    found = [0 if one.startswith((NO_DIGIT, NOT_A_PICTURE)) else 1 + one.startswith(TWO_DIGITS) for one in encoded]
    response.outputs[contract.FOUND].CopyFrom(tf.make_tensor_proto(np.array(found, np.int64)))
    box = np.tile(np.array([0.25, 0.5, 0.75, 1], np.float32), (len(encoded), 1))
    response.outputs[contract.BOX].CopyFrom(tf.make_tensor_proto(box))
    return response


def earlier_response(request: predict_pb2.PredictRequest, context: grpc.ServicerContext) -> object:
    """Respond as a version without the later outputs does: one unusable file fails the request."""
    encoded = request.inputs[contract.ENCODED].string_val
    for index, picture in enumerate(encoded):
        if picture.startswith(NOT_A_PICTURE):
            message = f"assertion failed: [picture {index} cannot be decoded; expected PNG]\n [[x]]"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
    response = predict_response(request)
    for name in (contract.PROBLEM, contract.FOUND, contract.BOX):
        del response.outputs[name]
    return response


def digits_response(digits: np.ndarray, *, version: int = 1) -> predict_pb2.PredictResponse:
    """Return the contract's outputs for these digits, int64 [N], as `tensor_content`."""
    probabilities = np.full((len(digits), contract.CLASSES), 0.01, np.float32)
    probabilities[np.arange(len(digits)), digits] = 0.91
    response = predict_pb2.PredictResponse()
    response.model_spec.name, response.model_spec.version.value = contract.MODEL_NAME, version
    response.outputs[contract.DIGIT].CopyFrom(tf.make_tensor_proto(digits))
    response.outputs[contract.CONFIDENCE].CopyFrom(tf.make_tensor_proto(probabilities.max(axis=1)))
    response.outputs[contract.PROBABILITIES].CopyFrom(tf.make_tensor_proto(probabilities))
    return response


def status_response(*versions: tuple[int, str], error_code: int = 0, error_message: str = "") -> object:
    """Return a status response with these versions and states, all with the same error."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version, state in versions:
        entry = response.model_version_status.add(version=version, state=state)
        entry.status.error_code, entry.status.error_message = error_code, error_message
    return response


def metadata_response() -> object:
    """Return a metadata response without signatures."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = contract.MODEL_NAME
    response.model_spec.version.value = 1
    response.metadata["signature_def"].Pack(get_model_metadata_pb2.SignatureDefMap())
    return response


@contextlib.contextmanager
def garbage_server() -> Iterator[str]:
    """Run a server whose every response is bytes that no message has; yield its `host:port`."""

    class Garbage(grpc.GenericRpcHandler):
        def service(self, _):
            return grpc.unary_unary_rpc_method_handler(lambda *_: b"\xff no message")

    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Garbage()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def images_of(*digits: int) -> np.ndarray:
    """Return one image per digit, uint8 [N, 28, 28]; the scripted server predicts that digit."""
    return np.repeat(np.array(digits, np.uint8), 28 * 28).reshape(-1, *contract.IMAGE_SHAPE)


def fail(code: grpc.StatusCode, message: str = "scripted failure", times: int | None = None) -> Handler:
    """Return a handler that fails every time, or only the first `times`; `handler.calls` counts the calls."""

    def handler(request, context):
        handler.calls += 1
        if times is None or handler.calls <= times:
            context.abort(code, message)
        return predict_response(request)

    handler.calls = 0
    return handler


@contextlib.contextmanager
def scripted_server(
    *,
    predict: Handler = lambda request, _: predict_response(request),
    status: Handler = lambda *_: status_response((1, "AVAILABLE")),
    metadata: Handler = lambda *_: get_model_metadata_pb2.GetModelMetadataResponse(),
    port: int = 0,
    credentials: grpc.ServerCredentials | None = None,
    max_message_bytes: int = 4 * 1024 * 1024,
) -> Iterator[str]:
    """Run the server; yield its `host:port`."""
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", max_message_bytes)]
    server = grpc.server(futures.ThreadPoolExecutor(32), options=options)

    class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802, the API's name
            return predict(request, context)

        def GetModelMetadata(self, request, context):  # noqa: N802
            return metadata(request, context)

    class Model(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request, context):  # noqa: N802
            return status(request, context)

    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Model(), server)
    address = f"127.0.0.1:{port}"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
