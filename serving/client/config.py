"""The settings of a client, with their defaults and checks.

This module imports nothing heavy, because the command line checks its flags with it before anything else is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.contract import MODEL_NAME

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest request or response: gRPC's own default limit for received messages, and that of most proxies. Only a single
picture that is larger than this makes a larger request."""

MAX_CHUNK_IMAGES = 5000
"""5000 images of 784 bytes stay below `MAX_MESSAGE_BYTES`."""

MAX_CHUNK_PICTURES = 2000
"""The response for 2000 pictures, `normalized` included, stays below `MAX_MESSAGE_BYTES` in either encoding."""

MIN_CONFIDENCE = 0.6
"""Predictions below this confidence are shown as "not sure". The model is calibrated: at 0.6, two of five are wrong."""

MAX_ATTEMPTS = 5
"""gRPC treats any larger number as this one."""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Certificates for an encrypted connection. The files are PEM and are read when the client is created."""

    ca_file: Path | None = None
    """Certificate of the authority that signed the server's; None for the public authorities that gRPC includes."""
    certificate_file: Path | None = None
    """The client's own certificate, for servers that require one (mTLS); needs `key_file`."""
    key_file: Path | None = None
    """The key of `certificate_file`."""
    server_name: str | None = None
    """The name to expect in the server's certificate, if it differs from the target's."""

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("a client certificate and its key go together; only one of the two was given")


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """Which model a client uses, and its timeouts, retries and request sizes."""

    model_name: str = MODEL_NAME
    version: int | None = None
    """Use only this version; None for the newest that the server has."""
    version_label: str | None = None
    """Use only the version with this label, such as "stable"; excludes `version`."""
    timeout_seconds: float = 10.0
    """Deadline of each request, retries included. A large input takes several requests."""
    max_attempts: int = MAX_ATTEMPTS
    """How often a request is sent at most while the server returns UNAVAILABLE; 1 for no retries."""
    chunk_images: int = 128
    """Images per request. A server that batches rejects a request above its largest batch."""
    chunk_pictures: int = 32
    """Pictures per request, fewer if they would exceed `MAX_MESSAGE_BYTES`. The server decodes and prepares each picture,
    which takes longer than the prediction; a request of many pictures must still meet its deadline."""
    chunks_in_flight: int = 4
    """How many requests of one call are in flight at once."""
    tls: Tls | None = None
    """None for plain text: only for loopback and trusted networks."""

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
