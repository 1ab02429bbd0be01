"""The errors of a request. Wrong arguments raise a plain `ValueError`, before anything is sent.

ServingError
  RequestError           the RPC failed: `code`, `details` and `target` are kept
    UnavailableError     UNAVAILABLE: no replica is reachable, or all are full, after the retries
    DeadlineError        DEADLINE_EXCEEDED
    NotFoundError        NOT_FOUND: no such model or version
    InvalidRequestError  INVALID_ARGUMENT, or FAILED_PRECONDITION (no such signature)
  ResponseError          the RPC succeeded, but the response breaks serving/contract.py
  NotReadyError          the wait for a version ended without it
  ClosedError            the client was closed before the response came
"""

from __future__ import annotations

import re

import grpc

from serving import contract

STATUS_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
"""gRPC's status codes by number."""


class ServingError(Exception):
    """A request ended without a prediction. Base class of all errors of the client."""


class RequestError(ServingError):
    """An RPC failed.

    Attributes:
        code: the name of the gRPC status code, such as "NOT_FOUND".
        details: the server's message, or gRPC's if no server was reached.
        target: where the request was sent.
        index: index, from 0, of the picture of the call that the server cannot use; None if it names none.
        problem: the reason, such as "cannot be decoded".
    """

    def __init__(self, code: str, details: str, target: str, index: int | None = None, problem: str = "") -> None:
        super().__init__(code, details, target, index, problem)
        self.code, self.details, self.target, self.index, self.problem = code, details, target, index, problem

    def __str__(self) -> str:
        return f"{self.target} returned {self.code}: {self.details}"


class UnavailableError(RequestError):
    """No replica could be reached, or the server is full. A later request may succeed."""

    def __str__(self) -> str:
        return f"{self.target} is unavailable: {self.details}"


class DeadlineError(RequestError):
    """No response came before the deadline. The server may still have done the work."""

    def __str__(self) -> str:
        return f"{self.target} did not respond in time: {self.details}"


class NotFoundError(RequestError):
    """The server has no such model, or does not serve this version of it now."""


class InvalidRequestError(RequestError):
    """The server rejects the request. Retrying it cannot help."""


class ResponseError(ServingError):
    """The server returned OK with a response that breaks the contract."""


class NotReadyError(ServingError):
    """The version waited for did not become AVAILABLE."""


class ClosedError(ServingError):
    """The client was closed before the response came, or before the request was sent."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.target = target

    def __str__(self) -> str:
        return f"the client of {self.target} is closed"


_BY_CODE: dict[str, type[RequestError]] = {
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "NOT_FOUND": NotFoundError,
    "INVALID_ARGUMENT": InvalidRequestError,
    "FAILED_PRECONDITION": InvalidRequestError,
}


_NAMED_PICTURE = re.compile(contract.NAMED_PICTURE)


def request_error(error: grpc.RpcError, target: str, first: int = 0) -> RequestError:
    """Convert gRPC's error to one of ours.

    Args:
        error: a finished call; all errors of grpc and grpc.aio are such calls.
        target: where the request was sent.
        first: index, among all inputs of the call, of the request's first input.
    """
    code, details = error.code().name, error.details() or "no message"
    named = _NAMED_PICTURE.search(details) if code == "INVALID_ARGUMENT" else None
    kind = _BY_CODE.get(code, RequestError)
    return kind(code, details, target, first + int(named[1]), named[2]) if named else kind(code, details, target)
