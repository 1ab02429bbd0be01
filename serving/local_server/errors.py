"""A refusal: the gRPC status code TensorFlow Serving would answer, and a sentence saying what was wrong."""

import grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}
"""From the integers that TensorFlow's own error codes share with gRPC to `grpc.StatusCode`."""

MESSAGE_LIMIT_BYTES = 1024
"""TF Serving cuts messages here too: they travel as HTTP/2 metadata, and a peer drops a header block above 8 KiB."""


class ServingError(Exception):
    """Ends one request, or the load of one version, with `code` and `message`."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message.encode("utf-8", "replace")[:MESSAGE_LIMIT_BYTES].decode("utf-8", "ignore")

    @property
    def number(self) -> int:
        """The code as the integer that a `StatusProto` carries."""
        return self.code.value[0]


def invalid_argument(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)


def unavailable(message: str) -> ServingError:
    return ServingError(grpc.StatusCode.UNAVAILABLE, message)
