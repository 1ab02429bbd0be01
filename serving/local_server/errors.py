"""An error with the gRPC status code that TensorFlow Serving returns, and a message."""

import grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}
"""Number -> `grpc.StatusCode`; TensorFlow uses the same numbers as gRPC."""

MESSAGE_LIMIT_BYTES = 1024
"""TF Serving truncates messages too: they travel as HTTP/2 metadata, and peers reject a header block above 8 KiB."""


class StatusError(Exception):
    """A request, or the load of a version, failed with `code` and `message`."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message.encode("utf-8", "replace")[:MESSAGE_LIMIT_BYTES].decode("utf-8", "ignore")

    @property
    def number(self) -> int:
        """The code as an integer, for a `StatusProto`."""
        return self.code.value[0]


def invalid_argument(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.NOT_FOUND, message)


def failed_precondition(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.FAILED_PRECONDITION, message)


def unavailable(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.UNAVAILABLE, message)
