"""The REST server: TensorFlow Serving's HTTP API and the Prometheus metrics, on the event loop of the gRPC server.

curl -d '{"instances": [...]}' http://localhost:8501/v1/models/digits:predict
curl http://localhost:8501/v1/models/digits
"""

import asyncio
import json
import logging
import re
import socket
from urllib.parse import unquote

import grpc
import uvicorn
from google.protobuf import json_format
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

import serving.local_server.metrics as metrics
from serving.local_server.api.json_examples import parse_examples, render_classifications, render_regressions
from serving.local_server.api.json_tensors import parse_document, prepare_json, render_outputs, signature_name
from serving.local_server.api.service import Service
from serving.local_server.api.status import SIGNATURE_DEF
from serving.local_server.config import ServerConfig
from serving.local_server.errors import StatusError, invalid_argument
from serving.local_server.metrics import Metrics

log = logging.getLogger(__name__)

_MODEL = r"(?P<model>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(rf"/v1/models/{_MODEL}:(?P<method>classify|regress|predict)", re.IGNORECASE | re.ASCII)
_GET = re.compile(rf"/v1/models(?:/{_MODEL})?(?P<metadata>/metadata)?", re.IGNORECASE | re.ASCII)

HTTP_STATUS = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""TF Serving's HTTP status of each gRPC code; 500 for the others."""

KEEP_ALIVE_SECONDS = 75


class RestServer:
    """A started REST server on a bound socket. Create it on the running event loop."""

    def __init__(self, config: ServerConfig, service: Service, page: Metrics, listener: socket.socket):
        self._server = uvicorn.Server(
            uvicorn.Config(
                RestApp(config, service, page),
                lifespan="off",
                ws="none",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._serving = asyncio.create_task(self._server.serve([listener]))

    async def wait_until_started(self) -> None:
        """Return when the server accepts connections."""
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0.001)
        if self._serving.done():
            self._serving.result()

    async def stop(self, grace_period_seconds: float) -> None:
        """Reject new requests and wait for those in flight, for at most the grace period."""
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_period_seconds))
        self._server.should_exit = True
        await self._serving


class RestApp:
    """The ASGI application."""

    def __init__(self, config: ServerConfig, service: Service, page: Metrics):
        self._config = config
        self._service = service
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one HTTP request."""
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("ascii", "replace")
        if path == metrics.PATH and request.method == "GET":
            return Response(self._page.render(), media_type="text/plain; version=0.0.4")
        if not path.lower().startswith("/v1/"):
            return Response("Not Found", 404, media_type="text/plain")
        try:
            async with asyncio.timeout(self._config.rest_timeout_seconds):
                return Response(await self._dispatch(request, path), media_type="application/json")
        except StatusError as error:
            return _error(error.code, error.message)
        except TimeoutError:
            return _error(grpc.StatusCode.DEADLINE_EXCEEDED, f"no response in {self._config.rest_timeout_seconds} s")
        except ClientDisconnect:
            raise
        except Exception as error:
            log.exception("%s %s failed", request.method, path)
            return _error(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

    async def _dispatch(self, request: Request, path: str) -> str:
        if request.method == "POST" and (match := _POST.fullmatch(path)):
            body = await self._read(request)
            return await self._post(match, body)
        if request.method == "GET" and (match := _GET.fullmatch(path)):
            return await self._get(match)
        raise invalid_argument(f"Malformed request: {request.method} {path}")

    async def _post(self, match: re.Match[str], body: bytes) -> str:
        spec = _model_spec(match)
        method = match["method"].lower()
        with self._service.recorded(spec.name, method.capitalize(), "REST", lambda: "DEADLINE_EXCEEDED"):
            document = parse_document(body)
            spec.signature_name = signature_name(document)
            if method == "predict":
                _, prepared, outputs = await self._service.run(spec, lambda servable: prepare_json(servable, document))
                return render_outputs(document, {alias: outputs[alias] for alias in prepared.outputs})
            examples = parse_examples(document)
            if method == "classify":
                classify = classification_pb2.ClassificationRequest(model_spec=spec, input=examples)
                return render_classifications((await self._service.classify(classify)).result)
            regress = regression_pb2.RegressionRequest(model_spec=spec, input=examples)
            return render_regressions((await self._service.regress(regress)).result)

    async def _get(self, match: re.Match[str]) -> str:
        if match["model"] is None:
            raise invalid_argument("Missing model name in request.")
        spec = _model_spec(match)
        if match["metadata"]:
            request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURE_DEF])
            return _render_metadata(await self._service.get_model_metadata(request))
        status = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return json_format.MessageToJson(
            await self._service.get_model_status(status), always_print_fields_with_no_presence=True
        )

    async def _read(self, request: Request) -> bytes:
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self._config.max_message_bytes:
                raise StatusError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"Received a body larger than max ({self._config.max_message_bytes} bytes)",
                )
            chunks.append(chunk)
        return b"".join(chunks)


def _model_spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=unquote(match["model"]))
    if match["version"] is not None:
        if len(match["version"]) > 19 or int(match["version"]) >= 2**63:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(match["version"])
    if match["label"] is not None:
        spec.version_label = unquote(match["label"])
    return spec


def _render_metadata(response: get_model_metadata_pb2.GetModelMetadataResponse) -> str:
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[SIGNATURE_DEF].Unpack(signatures)
    spec, signature_def = (
        json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        for message in (response.model_spec, signatures)
    )
    return json.dumps({"model_spec": spec, "metadata": {SIGNATURE_DEF: signature_def}}, indent=1)


def _error(code: grpc.StatusCode, message: str) -> Response:
    body = json.dumps({"error": message}, indent=4)
    return Response(body, HTTP_STATUS.get(code, 500), media_type="application/json")
