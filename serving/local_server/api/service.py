"""TensorFlow Serving's methods: parsed requests -> responses, the same for gRPC and REST."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from google.protobuf.message import Message
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

import serving.local_server.api.examples as examples
import serving.local_server.api.status as status
import serving.local_server.metrics as names
from serving.local_server.api.predict import Prepared, prepare, respond
from serving.local_server.errors import StatusError, invalid_argument
from serving.local_server.metrics import Metrics
from serving.local_server.model.batching import Batcher
from serving.local_server.model.servable import LoadedSignature, Servable
from serving.local_server.versions.model_config import parse_model_config
from serving.local_server.versions.models import Models


class Service:
    """Serves the requests of both transports. Every method raises StatusError."""

    def __init__(self, models: Models, batcher: Batcher, metrics: Metrics, *, max_tensor_bytes: int):
        self._models = models
        self._batcher = batcher
        self._metrics = metrics
        self._max_tensor_bytes = max_tensor_bytes

    async def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Run a signature on the inputs in `request`."""
        _require_spec(request)
        version, prepared, outputs = await self.run(
            request.model_spec, lambda servable: prepare(servable, request, max_tensor_bytes=self._max_tensor_bytes)
        )
        return respond(request.model_spec.name, version, prepared, outputs)

    async def run(
        self, spec: model_pb2.ModelSpec, prepare: Callable[[Servable], Prepared]
    ) -> tuple[int, Prepared, Mapping[str, np.ndarray]]:
        """Run the signature and inputs that `prepare` returns for the selected version.

        Returns:
            The version, what `prepare` returned, and every output of the signature.
        """
        with self._models.lease(spec) as (version, servable):
            prepared = prepare(servable)
            outputs = await self._run("Predict", spec.name, servable, prepared.signature, prepared.inputs)
            return version, prepared, outputs

    async def classify(
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """Run a classification signature on the examples in `request`."""
        _require_spec(request)
        with self._models.lease(request.model_spec) as (version, servable):
            signature = examples.classification_signature(servable, request.model_spec.signature_name)
            inputs = examples.serialize_examples(request.input)
            outputs = await self._run("Classify", request.model_spec.name, servable, signature, {"inputs": inputs})
            return classification_pb2.ClassificationResponse(
                result=examples.classification_result(outputs, len(inputs)),
                model_spec=_served_by(request.model_spec.name, signature, version),
            )

    async def regress(self, request: regression_pb2.RegressionRequest) -> regression_pb2.RegressionResponse:
        """Run a regression signature on the examples in `request`."""
        _require_spec(request)
        with self._models.lease(request.model_spec) as (version, servable):
            signature = examples.regression_signature(servable, request.model_spec.signature_name)
            inputs = examples.serialize_examples(request.input)
            outputs = await self._run("Regress", request.model_spec.name, servable, signature, {"inputs": inputs})
            return regression_pb2.RegressionResponse(
                result=examples.regression_result(outputs, len(inputs)),
                model_spec=_served_by(request.model_spec.name, signature, version),
            )

    async def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest
    ) -> inference_pb2.MultiInferenceResponse:
        """Run several classification and regression signatures of one model on the same examples."""
        spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
        with self._models.lease(spec) as (version, servable):
            tasks = examples.multi_inference_tasks(servable, request)
            inputs = examples.serialize_examples(request.input)
            response = inference_pb2.MultiInferenceResponse()
            for task in tasks:
                outputs = await self._run("MultiInference", spec.name, servable, task.signature, {"inputs": inputs})
                result = response.results.add(model_spec=_served_by(spec.name, task.signature, version))
                task.add_result(result, outputs, len(inputs))
            return response

    async def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Return the signatures of a version."""
        _require_spec(request)
        status.check_metadata_fields(request.metadata_field)
        with self._models.lease(request.model_spec) as (version, servable):
            return status.describe(request.model_spec.name, version, servable)

    async def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Return the state of one or all versions of a model. A version label is ignored."""
        _require_spec(request)
        spec = request.model_spec
        number = spec.version.value if spec.HasField("version") else None
        return status.report(spec.name, number, self._models.statuses(spec.name))

    async def reload_config(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replace the served models, their version policies and labels. Wait until new models are available."""
        models = parse_model_config(request.config)
        await asyncio.get_running_loop().run_in_executor(None, self._models.reload, models)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        return response

    @contextmanager
    def recorded(
        self, model_name: str, api: str, entrypoint: str, cancelled_code: Callable[[], str] = lambda: "CANCELLED"
    ) -> Iterator[None]:
        """Count the request in the block, and measure it if it succeeds.

        Args:
            model_name: The name in the request.
            api: "Predict", "Classify", ...
            entrypoint: "GRPC" or "REST".
            cancelled_code: Returns the code of a request that the client or its deadline ends.
        """
        # Names of unknown models are not recorded; otherwise clients could fill the memory with names.
        name = model_name if model_name in self._models else ""
        started = time.perf_counter()
        code = "UNKNOWN"
        try:
            yield
            code = "OK"
            elapsed = time.perf_counter() - started
            self._metrics.observe(names.REQUEST_LATENCY, elapsed, model_name=name, API=api, entrypoint=entrypoint)
        except StatusError as error:
            code = error.code.name
            raise
        except asyncio.CancelledError:
            code = cancelled_code()
            raise
        finally:
            self._metrics.count(names.REQUEST_COUNT, model_name=name, status=code)

    async def _run(
        self,
        api: str,
        model_name: str,
        servable: Servable,
        signature: LoadedSignature,
        inputs: Mapping[str, np.ndarray],
    ) -> Mapping[str, np.ndarray]:
        started = time.perf_counter()
        outputs = await self._batcher.run(servable, signature, inputs)
        elapsed = time.perf_counter() - started
        self._metrics.observe(names.RUNTIME_LATENCY, elapsed, model_name=model_name, API=api, runtime="TF1")
        return outputs


def _require_spec(request: Message) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def _served_by(name: str, signature: LoadedSignature, version: int) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=name, signature_name=signature.name)
    spec.version.value = version
    return spec
