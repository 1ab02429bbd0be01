"""The clients: numpy in, dataclasses out, over one gRPC channel, without TensorFlow.

    with DigitClient("localhost:8500") as client:
        client.wait_until_available(timeout_seconds=60)
        for prediction in client.predict(images):  # uint8 [N, 28, 28], 0 = paper, 255 = ink
            print(prediction.digit, prediction.confidence, prediction.version)
        for prediction in client.predict_pictures([Path("photo.jpg").read_bytes()]):
            print(prediction.digit, prediction.normalized)  # and what the network saw, uint8 [28, 28]

`AsyncDigitClient` is the same with `async with` and `await`. One client is enough for a process: threads share the one,
tasks the other. Every failure of a request is a `ServingError`; a wrong argument is a `ValueError`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc

import serving.client.responses as responses
from serving.client.channel import Methods, channel_options, check_target, credentials
from serving.client.config import ClientConfig, Tls
from serving.client.errors import ServingError, request_error
from serving.client.requests import Requests
from serving.client.results import (
    ModelMetadata,
    PicturePrediction,
    PicturePredictions,
    Prediction,
    Predictions,
    VersionStatus,
)
from serving.client.wait import PASSING, POLL_SECONDS, Wait

__all__ = [
    "AsyncDigitClient",
    "ClientConfig",
    "DigitClient",
    "PicturePrediction",
    "PicturePredictions",
    "Prediction",
    "Predictions",
    "ServingError",
    "Tls",
]

Answers = TypeVar("Answers", bound=Predictions)
UnderWay = deque[tuple[Any, int]]
"""Calls whose answers are still to be taken, in order, and how many inputs each carries."""


class DigitClient:
    """Asks from ordinary code; calls block.

    Args:
        target: HOST:PORT or any name of gRPC's, see serving/client/channel.py.
        config: what to ask and how patiently.
    Raises:
        ValueError: for a target that cannot be one.
        OSError: for a certificate file that cannot be read.
    """

    def __init__(self, target: str, config: ClientConfig | None = None) -> None:
        self.target, self.config = check_target(target), config or ClientConfig()
        self._requests, options = Requests(self.config), channel_options(self.config)
        if self.config.tls is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, credentials(self.config.tls), options)
        self._methods = Methods(self._channel)

    def predict(self, images: Any, *, timeout_seconds: float | None = None) -> Predictions:
        """The digits in `images`.

        Args:
            images: uint8 [N, 28, 28] or [28, 28], 0 = paper, 255 = ink. More than a chunk goes out as several requests,
                some of them under way at once.
            timeout_seconds: deadline of each request; None for the config's.
        Raises:
            ValueError: for anything else than such images.
            RequestError: if any chunk fails, whatever the others answer.
            ResponseError: if the model's outputs are not the contract's.
        """
        chunks = self._requests.split(images)
        return self._ask(chunks, self._requests.predict, responses.decode_predictions, timeout_seconds)

    def predict_pictures(
        self, pictures: Sequence[bytes], *, timeout_seconds: float | None = None
    ) -> PicturePredictions:
        """The digits in pictures of any size, which the server itself brings to MNIST's form.

        Args:
            pictures: the bytes of PNG, JPEG, BMP or GIF files as they are. Many go out as several requests.
            timeout_seconds: deadline of each request; None for the config's.
        Raises:
            ValueError: for anything else than bytes.
            RequestError: as for `predict`; its `index` says which picture the server cannot use.
            ResponseError: if the model's outputs are not the contract's.
        """
        chunks = self._requests.split_pictures(pictures)
        make, decode = self._requests.predict_pictures, responses.decode_picture_predictions
        return self._ask(chunks, make, decode, timeout_seconds)

    def _ask(
        self, chunks: Sequence[Any], make: Callable, decode: Callable[..., Answers], timeout_seconds: float | None
    ) -> Answers:
        if len(chunks) == 1:  # without a future, which would take a third longer
            response = self._call(self._methods.predict, make(chunks[0]), timeout_seconds)
            return decode(response, len(chunks[0]))
        seconds = self.config.timeout_seconds if timeout_seconds is None else timeout_seconds
        under_way: UnderWay = deque()
        parts: list[Answers] = []
        try:
            for chunk in chunks:
                if len(under_way) == self.config.chunks_in_flight:
                    parts.append(self._take_first(under_way, decode, parts))
                under_way.append((self._methods.predict.future(make(chunk), seconds), len(chunk)))
            while under_way:
                parts.append(self._take_first(under_way, decode, parts))
        finally:
            for call, _ in under_way:
                call.cancel()
        return responses.join(parts)

    def _take_first(self, under_way: UnderWay, decode: Callable[..., Answers], before: Sequence[Answers]) -> Answers:
        call, count = under_way[0]
        try:
            response = call.result()
        except grpc.RpcError as error:
            raise request_error(error, self.target, first=sum(map(len, before))) from error
        under_way.popleft()
        return decode(response, count)

    def status(self, version: int | None = None, *, timeout_seconds: float | None = None) -> tuple[VersionStatus, ...]:
        """Every version's state, the newest first, or only `version`'s. Of several replicas, one answers."""
        response = self._call(self._methods.status, self._requests.status(version), timeout_seconds)
        return responses.decode_status(response)

    def metadata(self, *, timeout_seconds: float | None = None) -> ModelMetadata:
        """The signatures of the version that would answer."""
        response = self._call(self._methods.metadata, self._requests.metadata(), timeout_seconds)
        return responses.decode_metadata(response)

    def wait_until_available(self, version: int | None = None, *, timeout_seconds: float = 60.0) -> int:
        """The first version to be AVAILABLE, or `version` once it is. Of several replicas, one is asked at a time.

        Raises:
            NotReadyError: when the time is over, or at once when the server has given `version` up.
            RequestError: for an answer that waiting cannot change.
        """
        wait = Wait(version, timeout_seconds)
        while True:
            try:
                found = wait.look_at(self.status(version, timeout_seconds=wait.next_timeout_seconds()))
            except PASSING as error:
                found = wait.note(error)
            if found is not None:
                return found
            time.sleep(POLL_SECONDS)

    def _call(self, method: Any, request: Any, timeout_seconds: float | None) -> Any:
        try:
            return method(request, self.config.timeout_seconds if timeout_seconds is None else timeout_seconds)
        except grpc.RpcError as error:
            raise request_error(error, self.target) from error

    def close(self) -> None:
        """Ends the channel, and with it the requests under way."""
        self._channel.close()

    def __enter__(self) -> DigitClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncDigitClient:
    """`DigitClient` for coroutines, with its arguments, results and errors. Make it inside the running event loop."""

    def __init__(self, target: str, config: ClientConfig | None = None) -> None:
        self.target, self.config = check_target(target), config or ClientConfig()
        self._requests, options = Requests(self.config), channel_options(self.config)
        if self.config.tls is None:
            self._channel = grpc.aio.insecure_channel(target, options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials(self.config.tls), options)
        self._methods = Methods(self._channel)

    async def predict(self, images: Any, *, timeout_seconds: float | None = None) -> Predictions:
        """See `DigitClient.predict`. Cancelling it cancels the requests under way."""
        chunks = self._requests.split(images)
        return await self._ask(chunks, self._requests.predict, responses.decode_predictions, timeout_seconds)

    async def predict_pictures(
        self, pictures: Sequence[bytes], *, timeout_seconds: float | None = None
    ) -> PicturePredictions:
        """See `DigitClient.predict_pictures`. Cancelling it cancels the requests under way."""
        chunks = self._requests.split_pictures(pictures)
        make, decode = self._requests.predict_pictures, responses.decode_picture_predictions
        return await self._ask(chunks, make, decode, timeout_seconds)

    async def _ask(
        self, chunks: Sequence[Any], make: Callable, decode: Callable[..., Answers], timeout_seconds: float | None
    ) -> Answers:
        seconds = self.config.timeout_seconds if timeout_seconds is None else timeout_seconds
        under_way: UnderWay = deque()
        parts: list[Answers] = []
        try:
            for chunk in chunks:
                if len(under_way) == self.config.chunks_in_flight:
                    parts.append(await self._take_first(under_way, decode, parts))
                under_way.append((self._methods.predict(make(chunk), timeout=seconds), len(chunk)))
            while under_way:
                parts.append(await self._take_first(under_way, decode, parts))
        finally:
            for call, _ in under_way:
                call.cancel()
        return responses.join(parts)

    async def _take_first(
        self, under_way: UnderWay, decode: Callable[..., Answers], before: Sequence[Answers]
    ) -> Answers:
        call, count = under_way[0]
        try:
            response = await call
        except grpc.RpcError as error:
            raise request_error(error, self.target, first=sum(map(len, before))) from error
        under_way.popleft()
        return decode(response, count)

    async def status(
        self, version: int | None = None, *, timeout_seconds: float | None = None
    ) -> tuple[VersionStatus, ...]:
        """See `DigitClient.status`."""
        response = await self._call(self._methods.status, self._requests.status(version), timeout_seconds)
        return responses.decode_status(response)

    async def metadata(self, *, timeout_seconds: float | None = None) -> ModelMetadata:
        """See `DigitClient.metadata`."""
        response = await self._call(self._methods.metadata, self._requests.metadata(), timeout_seconds)
        return responses.decode_metadata(response)

    async def wait_until_available(self, version: int | None = None, *, timeout_seconds: float = 60.0) -> int:
        """See `DigitClient.wait_until_available`."""
        wait = Wait(version, timeout_seconds)
        while True:
            try:
                found = wait.look_at(await self.status(version, timeout_seconds=wait.next_timeout_seconds()))
            except PASSING as error:
                found = wait.note(error)
            if found is not None:
                return found
            await asyncio.sleep(POLL_SECONDS)

    async def _call(self, method: Any, request: Any, timeout_seconds: float | None) -> Any:
        try:
            return await method(
                request, timeout=self.config.timeout_seconds if timeout_seconds is None else timeout_seconds
            )
        except grpc.RpcError as error:
            raise request_error(error, self.target) from error

    async def close(self) -> None:
        """Ends the channel, and with it the requests under way."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncDigitClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
