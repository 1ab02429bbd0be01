"""What both clients share: settings, the channel, pending requests, and the conversion of gRPC's exceptions."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import grpc

from serving.client.attempts import Attempts, Deadline, RetryThrottle
from serving.client.channel import Stubs, open_channel
from serving.client.config import ClientConfig, check_seconds
from serving.client.errors import ClosedError, request_error
from serving.client.requests import Requests
from serving.client.results import Predictions
from serving.client.target import check_target

PredictionsT = TypeVar("PredictionsT", bound=Predictions)
Decode = Callable[[bytes, int], PredictionsT]
"""Converts the response to a request with so many inputs."""


@dataclass(frozen=True)
class PendingCall:
    """A request that has no response yet."""

    call: Any
    """gRPC's future or coroutine call."""
    request: Any
    count: int
    """Number of inputs in the request."""
    attempts: Attempts


PendingCalls = deque[PendingCall]


class BaseClient:
    """What both clients share: settings, the channel, and the conversion of gRPC's exceptions."""

    def __init__(self, module: Any, target: str, config: ClientConfig | None, settings: dict[str, Any]) -> None:
        self.target, self.config = check_target(target), replace(config or ClientConfig(), **settings)
        self._requests, self._headers = Requests(self.config), self.config.header_items()
        self._channel = open_channel(module, target, self.config)
        self._stubs = Stubs(self._channel)
        self._throttle, self._closed = RetryThrottle(), False

    def _deadline(self, timeout_seconds: float | None) -> Deadline:
        if timeout_seconds is None:
            return Deadline(self.config.timeout_seconds)
        check_seconds("timeout_seconds", timeout_seconds)
        return Deadline(timeout_seconds)

    def _attempts(self, deadline: Deadline) -> Attempts:
        return Attempts(deadline.remaining_seconds(), self.config.max_attempts, self._throttle)

    @contextmanager
    def _serving_errors(self, first: int = 0) -> Iterator[None]:
        """Turn every failure in the block into a ServingError; `first` is the index of the request's first input."""
        try:
            yield
        except grpc.RpcError as error:
            if self._closed:
                raise ClosedError(self.target) from error
            raise request_error(error, self.target, first) from error
        except (ValueError, grpc.aio.UsageError) as error:  # gRPC's exceptions for a closed channel
            if self._closed:
                raise ClosedError(self.target) from error
            raise
        except asyncio.CancelledError:
            # grpc.aio cancels the calls of a channel that is closed, in tasks that the caller did not cancel.
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise ClosedError(self.target) from None
            raise
