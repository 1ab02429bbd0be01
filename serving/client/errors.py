"""What can go wrong between a client and its server. Wrong arguments are a plain `ValueError`, before anything is sent.

ServingError
  RequestError           the RPC failed: `code`, `details` and `target` are kept
    UnavailableError     UNAVAILABLE: no replica reachable, or all of them full, after the retries
    DeadlineError        DEADLINE_EXCEEDED
    NotFoundError        NOT_FOUND: no such model or version
    InvalidRequestError  INVALID_ARGUMENT, or FAILED_PRECONDITION (no such signature)
  ResponseError          the RPC succeeded, but the answer is not what serving/contract.py promises
  NotReadyError          the wait for a version ended without it
"""

from __future__ import annotations

import re

import grpc

from serving import contract

STATUS_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
"""gRPC's status codes by number."""


class ServingError(Exception):
    """Anything that kept an answer from coming back; never itself counted as an answer."""


class RequestError(ServingError):
    """An RPC that failed, with the server's own words.

    Attributes:
        code: the name of the gRPC status code, such as "NOT_FOUND".
        details: the server's message (or gRPC's, where no server was reached).
        target: where the request was sent.
        index: which of the call's pictures the server names as the one it cannot use, from 0; None where it names none.
        problem: what is wrong with that picture, such as "cannot be decoded".
    """

    def __init__(self, code: str, details: str, target: str, index: int | None = None, problem: str = "") -> None:
        super().__init__(code, details, target, index, problem)
        self.code, self.details, self.target, self.index, self.problem = code, details, target, index, problem

    def __str__(self) -> str:
        return f"{self.target} answered {self.code}: {self.details}"


class UnavailableError(RequestError):
    """No replica could be reached, or the server is full; a later request may succeed."""

    def __str__(self) -> str:
        return f"{self.target} is unavailable: {self.details}"


class DeadlineError(RequestError):
    """No answer came in time. The server may still have worked on it."""

    def __str__(self) -> str:
        return f"{self.target} did not answer in time: {self.details}"


class NotFoundError(RequestError):
    """The server has no such model, or does not serve this version of it (any more, or yet)."""


class InvalidRequestError(RequestError):
    """The server refuses the request as it is; sending it again cannot help."""


class ResponseError(ServingError):
    """The server answered OK with something else than the contract says."""


class NotReadyError(ServingError):
    """The version waited for did not become AVAILABLE."""


_BY_CODE: dict[str, type[RequestError]] = {
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "NOT_FOUND": NotFoundError,
    "INVALID_ARGUMENT": InvalidRequestError,
    "FAILED_PRECONDITION": InvalidRequestError,
}


_NAMED_PICTURE = re.compile(contract.NAMED_PICTURE)


def request_error(error: grpc.RpcError, target: str, first: int = 0) -> RequestError:
    """gRPC's error as one of ours.

    Args:
        error: a finished call, which all errors of grpc and grpc.aio are.
        target: where the request was sent.
        first: the index, among all inputs of the call, of the request's first.
    """
    code, details = error.code().name, error.details() or "no message"
    named = _NAMED_PICTURE.search(details) if code == "INVALID_ARGUMENT" else None
    kind = _BY_CODE.get(code, RequestError)
    return kind(code, details, target, first + int(named[1]), named[2]) if named else kind(code, details, target)
