"""The gRPC server: TensorFlow Serving's two services, reflection and, on request, health."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
    regression_pb2,
)

from serving.local_server.api.service import Service
from serving.local_server.config import ServerConfig
from serving.local_server.errors import StatusError
from serving.local_server.text_files import read_server_credentials

PREDICTION_SERVICE = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
MODEL_SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
"""Same messages as v1alpha, under the name that newer clients try first."""
HEALTH_NAMES = ("", "PredictionService", "ModelService")
"""The complete server, and TF Serving's short names of its services."""
DEADLINE_SLACK_SECONDS = 0.05
"""A client ends its request at the deadline, which comes to the server a moment before its own clock reaches it."""

Method = Callable[[Any], Awaitable[Message]]


async def start_server(config: ServerConfig, service: Service) -> tuple[grpc.aio.Server, int]:
    """Return a started server and its port. Raise RuntimeError if the port is taken."""
    options = [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # otherwise a second server shares the port silently
        *parse_channel_arguments(config.grpc_channel_arguments),
    ]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers(_handlers(service))
    services = [PREDICTION_SERVICE, MODEL_SERVICE, reflection.SERVICE_NAME]
    if config.enable_grpc_healthcheck_service:
        services.append(health.SERVICE_NAME)
        await _add_health(server)
    _add_reflection(server, services)
    port = _listen(server, config.address(config.port), config)
    if config.grpc_socket_path:
        _listen(server, f"unix:{config.grpc_socket_path}", config)
    await server.start()
    return server, port


def parse_channel_arguments(text: str) -> list[tuple[str, int | str]]:
    """Return the gRPC options in `name=value,name=value`; a value that looks like an integer is one.

    Raises:
        ValueError: A part has no "=".
    """
    options: list[tuple[str, int | str]] = []
    for part in filter(None, text.split(",")):
        name, separator, value = part.partition("=")
        if not separator:
            raise ValueError(f"grpc_channel_arguments has {part!r}; it must be name=value,name=value")
        options.append((name, int(value) if value.lstrip("-").isdecimal() else value))
    return options


def _listen(server: grpc.aio.Server, address: str, config: ServerConfig) -> int:
    if config.ssl_config_file is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, read_server_credentials(config.ssl_config_file))


def _handlers(service: Service) -> tuple[grpc.GenericRpcHandler, ...]:
    prediction = {
        "Predict": _recorded(predict_pb2.PredictRequest, service.predict, service, "Predict"),
        "Classify": _recorded(classification_pb2.ClassificationRequest, service.classify, service, "Classify"),
        "Regress": _recorded(regression_pb2.RegressionRequest, service.regress, service, "Regress"),
        "MultiInference": _handler(inference_pb2.MultiInferenceRequest, service.multi_inference),
        "GetModelMetadata": _handler(get_model_metadata_pb2.GetModelMetadataRequest, service.get_model_metadata),
    }
    model = {
        "GetModelStatus": _handler(get_model_status_pb2.GetModelStatusRequest, service.get_model_status),
        "HandleReloadConfigRequest": _handler(model_management_pb2.ReloadConfigRequest, service.reload_config),
    }
    return (
        grpc.method_handlers_generic_handler(PREDICTION_SERVICE, prediction),
        grpc.method_handlers_generic_handler(MODEL_SERVICE, model),
    )


def _recorded(request_type: type[Message], method: Method, service: Service, api: str) -> grpc.RpcMethodHandler:
    def record(request: Any, context: grpc.aio.ServicerContext) -> AbstractContextManager[None]:
        def cancelled_code() -> str:
            remaining = context.time_remaining()
            is_over = remaining is not None and remaining <= DEADLINE_SLACK_SECONDS
            return "DEADLINE_EXCEEDED" if is_over else "CANCELLED"

        return service.recorded(request.model_spec.name, api, "GRPC", cancelled_code)

    return _handler(request_type, method, record)


def _handler(
    request_type: type[Message],
    method: Method,
    record: Callable[[Any, grpc.aio.ServicerContext], AbstractContextManager[None]] = lambda *_: nullcontext(),
) -> grpc.RpcMethodHandler:
    async def handle(request_bytes: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            request = request_type.FromString(request_bytes)
        except DecodeError:  # as gRPC's C++ server; the Python server's own code is UNKNOWN
            await context.abort(grpc.StatusCode.INTERNAL, f"not a {request_type.DESCRIPTOR.name}")
        try:
            with record(request, context):
                return (await method(request)).SerializeToString()
        except StatusError as error:
            await context.abort(error.code, error.message)
        raise AssertionError("abort raises")

    return grpc.unary_unary_rpc_method_handler(handle)


async def _add_health(server: grpc.aio.Server) -> None:
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in HEALTH_NAMES:
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)


def _add_reflection(server: grpc.aio.Server, services: list[str]) -> None:
    servicer = reflection.aio.ReflectionServicer([*services, REFLECTION_V1])
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (reflection.SERVICE_NAME, REFLECTION_V1):
        handlers = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method})
        server.add_generic_rpc_handlers((handlers,))
