"""The client for coroutines: `DigitClient` (client.py) with `async with` and `await`, over grpc.aio.

async with AsyncDigitClient("localhost:8500", timeout_seconds=2) as client:
    predictions = await client.predict(images)
"""

from __future__ import annotations

import asyncio
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


class AsyncDigitClient(BaseClient):
    """`DigitClient` for coroutines: the same arguments, results and errors. Create it in the running event loop."""

    def __init__(self, target: str, config: ClientConfig | None = None, **settings: Any) -> None:
        super().__init__(grpc.aio, target, config, settings)

    async def predict(self, images: Any, *, timeout_seconds: float | None = None) -> Predictions:
        """See `DigitClient.predict`. Cancelling it cancels its pending requests."""
        chunks = self._requests.split(images)
        return await self._send(chunks, self._requests.predict, responses.decode_predictions, timeout_seconds)

    async def predict_pictures(
        self, pictures: Picture | Sequence[Picture], *, timeout_seconds: float | None = None
    ) -> PicturePredictions:
        """See `DigitClient.predict_pictures`. Cancelling it cancels its pending requests."""
        chunks = self._requests.split_pictures(pictures)
        encode, decode = self._requests.predict_pictures, responses.decode_picture_predictions
        return await self._send(chunks, encode, decode, timeout_seconds)

    async def _send(
        self, chunks: Sequence[Any], encode: Callable, decode: Decode[PredictionsT], timeout_seconds: float | None
    ) -> PredictionsT:
        deadline = self._deadline(timeout_seconds)
        pending: PendingCalls = deque()
        parts: list[PredictionsT] = []
        try:
            for chunk in chunks:
                if len(pending) == self.config.chunks_in_flight:
                    parts.append(await self._receive_first(pending, decode, parts))
                request, attempts = encode(chunk), self._attempts(deadline)
                timeout = attempts.next_timeout_seconds()
                with self._serving_errors():
                    call = self._stubs.predict(request, timeout=timeout, metadata=self._headers)
                pending.append(PendingCall(call, request, len(chunk), attempts))
            while pending:
                parts.append(await self._receive_first(pending, decode, parts))
        finally:
            for one in pending:
                one.call.cancel()
        return responses.join(parts)

    async def _receive_first(
        self, pending: PendingCalls, decode: Decode[PredictionsT], before: Sequence[PredictionsT]
    ) -> PredictionsT:
        one = pending[0]
        with self._serving_errors(first=sum(map(len, before))):
            try:
                response = await one.call
                one.attempts.succeed()
            except grpc.RpcError as error:
                if (pause := one.attempts.next_pause_seconds(error)) is None:
                    raise
                await asyncio.sleep(pause)
                response = await self._attempt(self._stubs.predict, one.request, one.attempts)
        pending.popleft()
        return decode(response, one.count)

    async def status(
        self, version: int | None = None, *, timeout_seconds: float | None = None
    ) -> tuple[VersionStatus, ...]:
        """See `DigitClient.status`."""
        response = await self._call(self._stubs.status, self._requests.status(version), self._deadline(timeout_seconds))
        return responses.decode_status(response)

    async def metadata(self, *, timeout_seconds: float | None = None) -> ModelMetadata:
        """See `DigitClient.metadata`."""
        response = await self._call(self._stubs.metadata, self._requests.metadata(), self._deadline(timeout_seconds))
        return responses.decode_metadata(response)

    async def is_live(self, *, timeout_seconds: float | None = None) -> bool:
        """See `DigitClient.is_live`."""
        try:
            await self.status(timeout_seconds=timeout_seconds)
        except (UnavailableError, DeadlineError):
            return False
        except RequestError:
            pass
        return True

    async def is_ready(self, *, timeout_seconds: float | None = None) -> bool:
        """See `DigitClient.is_ready`."""
        try:
            await self.metadata(timeout_seconds=timeout_seconds)
        except ServingError:
            return False
        return True

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

    async def _call(self, method: Any, request: Any, deadline: Deadline) -> bytes:
        with self._serving_errors():
            return await self._attempt(method, request, self._attempts(deadline))

    async def _attempt(self, method: Any, request: Any, attempts: Attempts) -> bytes:
        while True:
            try:
                timeout = attempts.next_timeout_seconds()
                response = await method(request, timeout=timeout, metadata=self._headers)
            except grpc.RpcError as error:
                if (pause := attempts.next_pause_seconds(error)) is None:
                    raise
                await asyncio.sleep(pause)
            else:
                attempts.succeed()
                return response

    async def close(self) -> None:
        """Close the channel. Pending requests raise a ClosedError."""
        self._closed = True
        await self._channel.close()

    async def __aenter__(self) -> AsyncDigitClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
