"""The two clients: numpy arrays or picture files in, dataclasses out, over one gRPC channel, without TensorFlow.

    with DigitClient("localhost:8500") as client:
        client.wait_until_available(timeout_seconds=60)
        for prediction in client.predict(images):  # uint8 [N, 28, 28], 0 = paper, 255 = ink
            print(prediction.digit, prediction.confidence, prediction.version)
        for prediction in client.predict_pictures([Path("photo.jpg").read_bytes()]):
            print(prediction.digit, prediction.normalized)  # normalized: the network's input, uint8 [28, 28]

`AsyncDigitClient` is the same with `async with` and `await`. One client is enough for a process: threads may share a
`DigitClient`, tasks an `AsyncDigitClient`. A failed request raises a `ServingError`, a wrong argument a `ValueError`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc

import serving.client.responses as responses
from serving.client.channel import Stubs, channel_options, check_target, credentials
from serving.client.config import ClientConfig
from serving.client.errors import request_error
from serving.client.requests import Requests
from serving.client.results import ModelMetadata, PicturePredictions, Predictions, VersionStatus
from serving.client.wait import POLL_SECONDS, TRANSIENT_ERRORS, Wait

PredictionsT = TypeVar("PredictionsT", bound=Predictions)
Decode = Callable[[Any, int], PredictionsT]
"""Converts a response for so many inputs."""
PendingCalls = deque[tuple[Any, int]]
"""Calls that have no response yet, in order, each with the number of its inputs."""


class DigitClient:
    """The blocking client.

    Args:
        target: HOST:PORT or another gRPC name, see serving/client/channel.py.
        config: model, timeouts, retries and request sizes; None for the defaults.

    Raises:
        ValueError: if `target` is not a gRPC target.
        OSError: if a certificate file cannot be read.
    """

    def __init__(self, target: str, config: ClientConfig | None = None) -> None:
        self.target, self.config = check_target(target), config or ClientConfig()
        self._requests, options = Requests(self.config), channel_options(self.config)
        if self.config.tls is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, credentials(self.config.tls), options)
        self._stubs = Stubs(self._channel)

    def predict(self, images: Any, *, timeout_seconds: float | None = None) -> Predictions:
        """Predicts the digits in `images`.

        Args:
            images: uint8 [N, 28, 28] or [28, 28], 0 = paper, 255 = ink. More than a chunk is sent as several requests,
                some of them in flight at once.
            timeout_seconds: deadline of each request; None for the config's.

        Returns:
            The predictions, in the order of `images`.

        Raises:
            ValueError: if `images` is anything else.
            RequestError: if any of the requests fails.
            ResponseError: if the model's outputs break the contract.
        """
        chunks = self._requests.split(images)
        return self._send(chunks, self._requests.predict, responses.decode_predictions, timeout_seconds)

    def predict_pictures(
        self, pictures: Sequence[bytes], *, timeout_seconds: float | None = None
    ) -> PicturePredictions:
        """Predicts the digits in pictures of any size. The model itself converts them to MNIST's form.

        Args:
            pictures: the bytes of PNG, JPEG, BMP or GIF files as they are. Many are sent as several requests.
            timeout_seconds: deadline of each request; None for the config's.

        Returns:
            The predictions, in the order of `pictures`. A picture that the model cannot use has a `problem`.

        Raises:
            ValueError: if `pictures` is anything else.
            RequestError: as for `predict`. A model version published before `problem` existed rejects the request
                instead; `index` is then that of the picture that it cannot use.
            ResponseError: if the model's outputs break the contract.
        """
        chunks = self._requests.split_pictures(pictures)
        encode, decode = self._requests.predict_pictures, responses.decode_picture_predictions
        return self._send(chunks, encode, decode, timeout_seconds)

    def _send(
        self, chunks: Sequence[Any], encode: Callable, decode: Decode[PredictionsT], timeout_seconds: float | None
    ) -> PredictionsT:
        if len(chunks) == 1:  # a blocking call: a future takes a third longer
            response = self._call(self._stubs.predict, encode(chunks[0]), timeout_seconds)
            return decode(response, len(chunks[0]))
        seconds = self.config.timeout_seconds if timeout_seconds is None else timeout_seconds
        pending: PendingCalls = deque()
        parts: list[PredictionsT] = []
        try:
            for chunk in chunks:
                if len(pending) == self.config.chunks_in_flight:
                    parts.append(self._receive_first(pending, decode, parts))
                pending.append((self._stubs.predict.future(encode(chunk), seconds), len(chunk)))
            while pending:
                parts.append(self._receive_first(pending, decode, parts))
        finally:
            for call, _ in pending:
                call.cancel()
        return responses.join(parts)

    def _receive_first(
        self, pending: PendingCalls, decode: Decode[PredictionsT], before: Sequence[PredictionsT]
    ) -> PredictionsT:
        call, count = pending[0]
        try:
            response = call.result()
        except grpc.RpcError as error:
            raise request_error(error, self.target, first=sum(map(len, before))) from error
        pending.popleft()
        return decode(response, count)

    def status(self, version: int | None = None, *, timeout_seconds: float | None = None) -> tuple[VersionStatus, ...]:
        """Returns the state of every version, newest first, or of `version` only. Of several replicas, one is queried."""
        response = self._call(self._stubs.status, self._requests.status(version), timeout_seconds)
        return responses.decode_status(response)

    def metadata(self, *, timeout_seconds: float | None = None) -> ModelMetadata:
        """Returns the signatures of the version that serves this client's requests."""
        response = self._call(self._stubs.metadata, self._requests.metadata(), timeout_seconds)
        return responses.decode_metadata(response)

    def wait_until_available(self, version: int | None = None, *, timeout_seconds: float = 60.0) -> int:
        """Waits until `version`, or with None any version, is AVAILABLE. Each poll queries one of several replicas.

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

    def _call(self, method: Any, request: Any, timeout_seconds: float | None) -> Any:
        try:
            return method(request, self.config.timeout_seconds if timeout_seconds is None else timeout_seconds)
        except grpc.RpcError as error:
            raise request_error(error, self.target) from error

    def close(self) -> None:
        """Closes the channel and cancels pending requests."""
        self._channel.close()

    def __enter__(self) -> DigitClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncDigitClient:
    """`DigitClient` for coroutines: the same arguments, results and errors. Create it in the running event loop."""

    def __init__(self, target: str, config: ClientConfig | None = None) -> None:
        self.target, self.config = check_target(target), config or ClientConfig()
        self._requests, options = Requests(self.config), channel_options(self.config)
        if self.config.tls is None:
            self._channel = grpc.aio.insecure_channel(target, options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials(self.config.tls), options)
        self._stubs = Stubs(self._channel)

    async def predict(self, images: Any, *, timeout_seconds: float | None = None) -> Predictions:
        """See `DigitClient.predict`. Cancelling it cancels its pending requests."""
        chunks = self._requests.split(images)
        return await self._send(chunks, self._requests.predict, responses.decode_predictions, timeout_seconds)

    async def predict_pictures(
        self, pictures: Sequence[bytes], *, timeout_seconds: float | None = None
    ) -> PicturePredictions:
        """See `DigitClient.predict_pictures`. Cancelling it cancels its pending requests."""
        chunks = self._requests.split_pictures(pictures)
        encode, decode = self._requests.predict_pictures, responses.decode_picture_predictions
        return await self._send(chunks, encode, decode, timeout_seconds)

    async def _send(
        self, chunks: Sequence[Any], encode: Callable, decode: Decode[PredictionsT], timeout_seconds: float | None
    ) -> PredictionsT:
        seconds = self.config.timeout_seconds if timeout_seconds is None else timeout_seconds
        pending: PendingCalls = deque()
        parts: list[PredictionsT] = []
        try:
            for chunk in chunks:
                if len(pending) == self.config.chunks_in_flight:
                    parts.append(await self._receive_first(pending, decode, parts))
                pending.append((self._stubs.predict(encode(chunk), timeout=seconds), len(chunk)))
            while pending:
                parts.append(await self._receive_first(pending, decode, parts))
        finally:
            for call, _ in pending:
                call.cancel()
        return responses.join(parts)

    async def _receive_first(
        self, pending: PendingCalls, decode: Decode[PredictionsT], before: Sequence[PredictionsT]
    ) -> PredictionsT:
        call, count = pending[0]
        try:
            response = await call
        except grpc.RpcError as error:
            raise request_error(error, self.target, first=sum(map(len, before))) from error
        pending.popleft()
        return decode(response, count)

    async def status(
        self, version: int | None = None, *, timeout_seconds: float | None = None
    ) -> tuple[VersionStatus, ...]:
        """See `DigitClient.status`."""
        response = await self._call(self._stubs.status, self._requests.status(version), timeout_seconds)
        return responses.decode_status(response)

    async def metadata(self, *, timeout_seconds: float | None = None) -> ModelMetadata:
        """See `DigitClient.metadata`."""
        response = await self._call(self._stubs.metadata, self._requests.metadata(), timeout_seconds)
        return responses.decode_metadata(response)

    async def wait_until_available(self, version: int | None = None, *, timeout_seconds: float = 60.0) -> int:
        """See `DigitClient.wait_until_available`."""
        wait = Wait(version, timeout_seconds)
        while True:
            try:
                available = wait.check(await self.status(version, timeout_seconds=wait.next_timeout_seconds()))
                if available is not None:
                    return available
            except TRANSIENT_ERRORS as error:
                wait.note(error)
            await asyncio.sleep(POLL_SECONDS)

    async def _call(self, method: Any, request: Any, timeout_seconds: float | None) -> Any:
        try:
            return await method(
                request, timeout=self.config.timeout_seconds if timeout_seconds is None else timeout_seconds
            )
        except grpc.RpcError as error:
            raise request_error(error, self.target) from error

    async def close(self) -> None:
        """Closes the channel and cancels pending requests."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncDigitClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
