"""TensorFlow Serving's own stubs, and the requests and checks that the server tests share.

Not our client: the server is tested against the API as others speak it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving import contract
from tests.serving.rest import Rest

TIMEOUT_SECONDS = 60


class Stubs:
    """A channel to `address` (host:port or unix:path) and the services behind it; `rest_address` for REST."""

    def __init__(
        self, address: str, rest_address: str | None = None, *, credentials: grpc.ChannelCredentials | None = None
    ):
        self.address = address
        self._rest_address = rest_address
        self.channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    @property
    def rest(self) -> Rest:
        """REST requests to the same server; skips the test where the server's REST address is not known."""
        if self._rest_address is None:
            pytest.skip("set TF_SERVING_REST_TARGET to run the REST cases")
        return Rest(self._rest_address)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def predict(self, request: predict_pb2.PredictRequest, timeout: float = TIMEOUT_SECONDS):
        return self.prediction.Predict(request, timeout=timeout)

    def metadata(self, fields=("signature_def",), **spec):
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=model_spec(**spec), metadata_field=fields)
        return self.prediction.GetModelMetadata(request, timeout=TIMEOUT_SECONDS)

    def status(self, **spec):
        """Return {version: (state's name, error code, error message)}, in the order received."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=model_spec(**spec))
        answer = self.model.GetModelStatus(request, timeout=TIMEOUT_SECONDS)
        name_of = get_model_status_pb2.ModelVersionStatus.State.Name
        return {
            entry.version: (name_of(entry.state), entry.status.error_code, entry.status.error_message)
            for entry in answer.model_version_status
        }

    def state(self, version: int) -> str | None:
        """Return the name of a version's state, None for a version never seen."""
        return self.status().get(version, (None,))[0]


def model_spec(
    name: str = contract.MODEL_NAME, *, signature: str = "", version: int | None = None, label: str = ""
) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        spec.version.value = version
    if label:
        spec.version_label = label
    return spec


def predict_request(images: np.ndarray, **spec) -> predict_pb2.PredictRequest:
    """Return a request for uint8 [N, 28, 28] images; keywords go into its model spec."""
    request = predict_pb2.PredictRequest(model_spec=model_spec(**spec))
    request.inputs[contract.IMAGES].CopyFrom(tf.make_tensor_proto(images))
    return request


def request_of(*, signature: str = "", **inputs) -> predict_pb2.PredictRequest:
    """Return a request with any inputs, by alias."""
    request = predict_pb2.PredictRequest(model_spec=model_spec(signature=signature))
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return request


def pictures_request(*encoded: bytes) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest(model_spec=model_spec(signature="pictures"))
    request.inputs["encoded"].CopyFrom(tf.make_tensor_proto(list(encoded), dtype=tf.string))
    return request


def outputs_of(response: predict_pb2.PredictResponse) -> dict[str, np.ndarray]:
    return {alias: tf.make_ndarray(tensor) for alias, tensor in response.outputs.items()}


def digits_of(response: predict_pb2.PredictResponse) -> list[int]:
    return outputs_of(response)[contract.DIGIT].tolist()


def version_of(response: predict_pb2.PredictResponse) -> int:
    return response.model_spec.version.value


@contextmanager
def rejected(code: str, *words: str) -> Iterator[None]:
    """Expect the block's RPC to fail with `code` and a message that holds every one of `words`."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    error = caught.value
    assert isinstance(error, grpc.Call)
    assert error.code() == getattr(grpc.StatusCode, code), error.details()
    for word in words:
        assert word in (error.details() or "")
