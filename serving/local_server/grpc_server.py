"""The gRPC server: TensorFlow Serving's two services, health and reflection, on one event loop."""

import time
from collections.abc import Awaitable, Callable

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
)

import serving.local_server.api.status as status
import serving.local_server.metrics as names
from serving.local_server.api.predict import Limits, prepare, respond
from serving.local_server.config import ServerConfig
from serving.local_server.errors import StatusError, invalid_argument
from serving.local_server.metrics import Metrics
from serving.local_server.model.batching import Batcher
from serving.local_server.versions.manager import VersionManager

PREDICTION_SERVICE = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
MODEL_SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
HEALTH_NAMES = ("", "PredictionService", "ModelService")
"""The complete server, and TF Serving's short names of its services."""

Answer = Callable[[Message], Awaitable[Message]]


class Servicer:
    """Serves the requests for one model. Every method takes a parsed request and raises StatusError."""

    def __init__(self, config: ServerConfig, versions: VersionManager, batcher: Batcher, metrics: Metrics):
        self._config = config
        self._versions = versions
        self._batcher = batcher
        self._metrics = metrics
        self._limits = Limits(max_rows=config.max_batch_size, max_bytes=config.max_message_bytes)

    async def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        _require_spec(request)
        with self._versions.lease(*self._resolve(request.model_spec)) as (version, servable):
            prepared = prepare(servable, request, self._limits)
            started = time.perf_counter()
            outputs = await self._batcher.run(servable, prepared.signature, prepared.inputs)
            labels = {"model_name": self._config.model_name, "API": "Predict", "runtime": "TF1"}
            self._metrics.observe(names.RUNTIME_LATENCY, time.perf_counter() - started, **labels)
            return respond(request.model_spec.name, version, prepared, outputs)

    async def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        _require_spec(request)
        status.check_metadata_fields(request.metadata_field)
        with self._versions.lease(*self._resolve(request.model_spec)) as (version, servable):
            return status.describe(request.model_spec.name, version, servable)

    async def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        _require_spec(request)
        spec = request.model_spec
        number = self._number(spec)
        known = self._versions.statuses() if spec.name == self._config.model_name else []
        return status.report(spec.name, number, known)

    def _resolve(self, spec: model_pb2.ModelSpec) -> tuple[int | None, str]:
        """Returns the requested version (None: the latest) and the request in TF Serving's words."""
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        number = self._number(spec)
        described = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
        if spec.name != self._config.model_name:
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {described}")
        return number, described

    def _number(self, spec: model_pb2.ModelSpec) -> int | None:
        choice = spec.WhichOneof("version_choice")
        if choice == "version":
            return spec.version.value
        if choice == "version_label":
            labels = self._config.version_labels if spec.name == self._config.model_name else {}
            if spec.version_label not in labels:
                raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
            return labels[spec.version_label]
        return None


async def start_server(config: ServerConfig, servicer: Servicer, metrics: Metrics) -> tuple[grpc.aio.Server, int]:
    """Returns a started server and its port. Raises RuntimeError if the port is taken."""
    options = [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # otherwise a second server shares the port silently
    ]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers(_handlers(servicer, config.model_name, metrics))
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    for name in HEALTH_NAMES:
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(
        (PREDICTION_SERVICE, MODEL_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    port = server.add_insecure_port(f"{config.host}:{config.port}")
    await server.start()
    return server, port


def _handlers(servicer: Servicer, model_name: str, metrics: Metrics) -> tuple[grpc.GenericRpcHandler, ...]:
    def counted(answer: Answer) -> Answer:
        return _counted(answer, model_name, metrics)

    prediction = {
        "Predict": _handler(predict_pb2.PredictRequest, counted(servicer.predict)),
        "GetModelMetadata": _handler(get_model_metadata_pb2.GetModelMetadataRequest, servicer.get_model_metadata),
        "Classify": _refuses("Classify takes tf.Example inputs; send images to Predict."),
        "Regress": _refuses("Regress takes tf.Example inputs; send images to Predict."),
        "MultiInference": _refuses("MultiInference takes tf.Example inputs; send images to Predict."),
    }
    model = {
        "GetModelStatus": _handler(get_model_status_pb2.GetModelStatusRequest, servicer.get_model_status),
        "HandleReloadConfigRequest": _refuses("The local server is configured by its flags; start it anew."),
    }
    return (
        grpc.method_handlers_generic_handler(PREDICTION_SERVICE, prediction),
        grpc.method_handlers_generic_handler(MODEL_SERVICE, model),
    )


def _handler(request_type: type[Message], answer: Answer) -> grpc.RpcMethodHandler:
    async def handle(request_bytes: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            request = request_type.FromString(request_bytes)
        except DecodeError:  # as gRPC's C++ server; the Python server's own code is UNKNOWN
            await context.abort(grpc.StatusCode.INTERNAL, f"not a {request_type.DESCRIPTOR.name}")
        try:
            return (await answer(request)).SerializeToString()
        except StatusError as error:
            await context.abort(error.code, error.message)
        raise AssertionError("abort raises")

    return grpc.unary_unary_rpc_method_handler(handle)


def _refuses(reason: str) -> grpc.RpcMethodHandler:
    async def handle(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, reason)
        raise AssertionError("abort raises")

    return grpc.unary_unary_rpc_method_handler(handle)


def _counted(answer: Answer, model_name: str, metrics: Metrics) -> Answer:
    async def counting(request: predict_pb2.PredictRequest) -> Message:
        started = time.perf_counter()
        code = "CANCELLED"  # if the client or its deadline ends the request
        try:
            response = await answer(request)
            code = "OK"
            labels = {"model_name": model_name, "API": "Predict", "entrypoint": "GRPC"}
            metrics.observe(names.REQUEST_LATENCY, time.perf_counter() - started, **labels)
            return response
        except StatusError as error:
            code = error.code.name
            raise
        finally:
            # Names of unknown models are not recorded; otherwise clients could fill the memory with names.
            asked = request.model_spec.name
            metrics.count(names.REQUEST_COUNT, model_name=asked if asked == model_name else "", status=code)

    return counting


def _require_spec(request: Message) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
