"""What a client asks, and how patiently. It imports nothing heavy: the command line checks its flags with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.contract import MODEL_NAME

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest request or response: what gRPC itself allows to be received by default, so also most proxies. Only a single
picture that is larger than this makes a larger request."""

MAX_CHUNK_IMAGES = 5000
"""5000 images of 784 bytes stay below `MAX_MESSAGE_BYTES`."""

MAX_CHUNK_PICTURES = 2000
"""The answers for 2000 pictures, what the model saw included, stay below `MAX_MESSAGE_BYTES` in either encoding."""

MIN_CONFIDENCE = 0.6
"""Below this an answer is given as "not sure". The model's confidence is calibrated: at 0.6 two of five are wrong."""

MAX_ATTEMPTS = 5
"""gRPC counts any larger number as this one."""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Encryption, and who is who. Files are PEM; they are read when the client is made."""

    ca_file: Path | None = None
    """The authority that signed the server's certificate; None for the public ones that gRPC carries."""
    certificate_file: Path | None = None
    """The client's own certificate, for servers that ask for one (mTLS); needs `key_file`."""
    key_file: Path | None = None
    """The key of `certificate_file`."""
    server_name: str | None = None
    """The name to expect in the server's certificate, where it is not the target's."""

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("a client certificate and its key go together; one of the two was given")


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """What to ask, and how patiently."""

    model_name: str = MODEL_NAME
    version: int | None = None
    """Only this version may answer; None for the newest that each server has."""
    version_label: str | None = None
    """Only the version with this label may answer, such as "stable"; excludes `version`."""
    timeout_seconds: float = 10.0
    """Deadline of each request, retries included. A larger input takes as many requests as it has chunks."""
    max_attempts: int = MAX_ATTEMPTS
    """Times that a request is sent in all while the answer is UNAVAILABLE; 1 for no retries."""
    chunk_images: int = 128
    """Images per request. A server that batches refuses a request above its largest batch."""
    chunk_pictures: int = 32
    """Pictures per request, fewer where they would be more than `MAX_MESSAGE_BYTES`. A server decodes and prepares each,
    which takes longer than the prediction: a request of many must still meet its deadline."""
    chunks_in_flight: int = 4
    """Requests of one call that are under way at once."""
    tls: Tls | None = None
    """None for plain text: loopback and trusted networks only."""

    def __post_init__(self) -> None:
        if not self.model_name:
            raise ValueError(f"model_name must not be empty; the trainer publishes {MODEL_NAME!r}")
        if self.version is not None and self.version_label is not None:
            raise ValueError(f"give a version ({self.version}) or a label ({self.version_label!r}), not both")
        if self.version is not None and not 0 <= self.version < 2**63:
            raise ValueError(f"version must be from 0 to 2^63 - 1, not {self.version}")
        if self.timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds must be above 0, not {self.timeout_seconds}")
        for name, value, largest in (
            ("max_attempts", self.max_attempts, MAX_ATTEMPTS),
            ("chunk_images", self.chunk_images, MAX_CHUNK_IMAGES),
            ("chunk_pictures", self.chunk_pictures, MAX_CHUNK_PICTURES),
            ("chunks_in_flight", self.chunks_in_flight, 1000),
        ):
            if not 1 <= value <= largest:
                raise ValueError(f"{name} must be from 1 to {largest}, not {value}")
