"""The blocking client: numpy arrays or picture files in, dataclasses out, over one gRPC channel, without TensorFlow.

    with DigitClient("localhost:8500", timeout_seconds=2) as client:
        client.wait_until_available(timeout_seconds=60)
        for prediction in client.predict(images):  # uint8 [N, 28, 28], 0 = paper, 255 = ink
            print(prediction.digit, prediction.confidence, prediction.version)
        for prediction in client.predict_pictures([Path("photo.jpg")]):
            print(prediction.digit, prediction.normalized)  # normalized: the network's input, uint8 [28, 28]

`AsyncDigitClient` (async_client.py) is the same with `async with` and `await`. One client is enough for a process: threads
may share a `DigitClient`, tasks an `AsyncDigitClient`. A failed request raises a `ServingError`, a wrong argument a
`ValueError`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import grpc

import serving.client.responses as responses
from serving.client.attempts import Attempts, Deadline
from serving.client.base_client import BaseClient, Decode, PendingCall, PendingCalls, PredictionsT
from serving.client.config import ClientConfig
from serving.client.errors import DeadlineError, RequestError, ServingError, UnavailableError
from serving.client.requests import Picture
from serving.client.results import ModelMetadata, PicturePredictions, Predictions, VersionStatus
from serving.client.wait import POLL_SECONDS, TRANSIENT_ERRORS, Wait


class DigitClient(BaseClient):
    """The blocking client.

    Args:
        target: HOST:PORT or another gRPC name, see serving/client/target.py.
        config: model, timeouts, retries and request sizes; None for the defaults.
        settings: fields of `ClientConfig` that replace those of `config`, such as `version_label="stable"`.

    Raises:
        ValueError: if `target` is not a gRPC target, or a setting or certificate file is invalid.
        OSError: if a certificate file cannot be read.
    """

    def __init__(self, target: str, config: ClientConfig | None = None, **settings: Any) -> None:
        super().__init__(grpc, target, config, settings)

    def predict(self, images: Any, *, timeout_seconds: float | None = None) -> Predictions:
        """Predict the digits in `images`.

        Args:
            images: uint8 [N, 28, 28] or [28, 28], 0 = paper, 255 = ink. More than a chunk is sent as several requests,
                some of them in flight at once.
            timeout_seconds: deadline of the whole call; None for the config's.

        Returns:
            The predictions, in the order of `images`.

        Raises:
            ValueError: if `images` is anything else.
            RequestError: if any of the requests fails.
            ResponseError: if the model's outputs break the contract.
            ClosedError: if the client is closed before all responses have come.
        """
        chunks = self._requests.split(images)
        return self._send(chunks, self._requests.predict, responses.decode_predictions, timeout_seconds)

    def predict_pictures(
        self, pictures: Picture | Sequence[Picture], *, timeout_seconds: float | None = None
    ) -> PicturePredictions:
        """Predict the digits in pictures of any size. The model itself converts them to MNIST's form.

        Args:
            pictures: PNG, JPEG, BMP or GIF files, as paths or as their content. Many are sent as several requests.
            timeout_seconds: deadline of the whole call; None for the config's.

        Returns:
            The predictions, in the order of `pictures`. A picture that the model cannot use has a `problem`.

        Raises:
            ValueError: if `pictures` is anything else.
            OSError: if a path cannot be read.
            RequestError: as for `predict`. A model version published before `problem` existed rejects the request
                instead; `index` is then that of the picture that it cannot use.
            ResponseError: if the model's outputs break the contract.
            ClosedError: if the client is closed before all responses have come.
        """
        chunks = self._requests.split_pictures(pictures)
        encode, decode = self._requests.predict_pictures, responses.decode_picture_predictions
        return self._send(chunks, encode, decode, timeout_seconds)

    def _send(
        self, chunks: Sequence[Any], encode: Callable, decode: Decode[PredictionsT], timeout_seconds: float | None
    ) -> PredictionsT:
        deadline = self._deadline(timeout_seconds)
        if len(chunks) == 1:  # a blocking call: a future takes a third longer
            return decode(self._call(self._stubs.predict, encode(chunks[0]), deadline), len(chunks[0]))
        pending: PendingCalls = deque()
        parts: list[PredictionsT] = []
        try:
            for chunk in chunks:
                if len(pending) == self.config.chunks_in_flight:
                    parts.append(self._receive_first(pending, decode, parts))
                request, attempts = encode(chunk), self._attempts(deadline)
                timeout = attempts.next_timeout_seconds()
                with self._serving_errors():
                    call = self._stubs.predict.future(request, timeout=timeout, metadata=self._headers)
                pending.append(PendingCall(call, request, len(chunk), attempts))
            while pending:
                parts.append(self._receive_first(pending, decode, parts))
        finally:
            for one in pending:
                one.call.cancel()
        return responses.join(parts)

    def _receive_first(
        self, pending: PendingCalls, decode: Decode[PredictionsT], before: Sequence[PredictionsT]
    ) -> PredictionsT:
        one = pending[0]
        with self._serving_errors(first=sum(map(len, before))):
            try:
                response = one.call.result()
                one.attempts.succeed()
            except grpc.RpcError as error:
                if (pause := one.attempts.next_pause_seconds(error)) is None:
                    raise
                time.sleep(pause)
                response = self._attempt(self._stubs.predict, one.request, one.attempts)
        pending.popleft()
        return decode(response, one.count)

    def status(self, version: int | None = None, *, timeout_seconds: float | None = None) -> tuple[VersionStatus, ...]:
        """Return the state of every version, newest first, or of `version` only. Of several replicas, one is queried."""
        response = self._call(self._stubs.status, self._requests.status(version), self._deadline(timeout_seconds))
        return responses.decode_status(response)

    def metadata(self, *, timeout_seconds: float | None = None) -> ModelMetadata:
        """Return the signatures of the version that serves this client's requests."""
        response = self._call(self._stubs.metadata, self._requests.metadata(), self._deadline(timeout_seconds))
        return responses.decode_metadata(response)

    def is_live(self, *, timeout_seconds: float | None = None) -> bool:
        """Return whether a server responds at all, with or without a model."""
        try:
            self.status(timeout_seconds=timeout_seconds)
        except (UnavailableError, DeadlineError):
            return False
        except RequestError:
            pass
        return True

    def is_ready(self, *, timeout_seconds: float | None = None) -> bool:
        """Return whether a server serves the config's model and version now."""
        try:
            self.metadata(timeout_seconds=timeout_seconds)
        except ServingError:
            return False
        return True

    def wait_until_available(self, version: int | None = None, *, timeout_seconds: float = 60.0) -> int:
        """Wait until `version`, or with None any version, is AVAILABLE. Each poll queries one of several replicas.

        Returns:
            The AVAILABLE version, the newest if there are several.

        Raises:
            NotReadyError: when the time is over, or at once if the server has given up loading `version`.
            RequestError: if a status request fails for a reason that waiting cannot change.
        """
        wait = Wait(version, timeout_seconds)
        while True:
            try:
                available = wait.check(self.status(version, timeout_seconds=wait.next_timeout_seconds()))
                if available is not None:
                    return available
            except TRANSIENT_ERRORS as error:
                wait.note(error)
            time.sleep(POLL_SECONDS)

    def _call(self, method: Any, request: Any, deadline: Deadline) -> bytes:
        with self._serving_errors():
            return self._attempt(method, request, self._attempts(deadline))

    def _attempt(self, method: Any, request: Any, attempts: Attempts) -> bytes:
        while True:
            try:
                timeout = attempts.next_timeout_seconds()
                response = method(request, timeout=timeout, metadata=self._headers)
            except grpc.RpcError as error:
                if (pause := attempts.next_pause_seconds(error)) is None:
                    raise
                time.sleep(pause)
            else:
                attempts.succeed()
                return response

    def close(self) -> None:
        """Close the channel. Pending requests raise a ClosedError."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> DigitClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
