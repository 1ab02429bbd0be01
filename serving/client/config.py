"""The settings of a client, with their defaults and checks.

This module imports nothing heavy, because the command line checks its flags with it before anything else is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serving.contract import MODEL_NAME

if TYPE_CHECKING:
    import grpc

REQUEST_TIMEOUT_SECONDS = 10.0
"""Deadline of each request of a call that has no deadline of its own."""

MAX_SECONDS = 366 * 24 * 3600
"""Longest deadline: a year. gRPC takes a much longer one for one that has passed."""

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest request or response: gRPC's own default limit for received messages, and that of most proxies. Only a single
picture that is larger than this makes a larger request."""

MAX_CHUNK_IMAGES = 5000
"""5000 images of 784 bytes stay below `MAX_MESSAGE_BYTES`."""

MAX_CHUNK_PICTURES = 2000
"""The response for 2000 pictures, `normalized` included, stays below `MAX_MESSAGE_BYTES` in either encoding."""

MIN_CONFIDENCE = 0.9
"""Predictions below this confidence are shown as "not sure". On rendered photographs of digits that presets hold back,
these are three quarters of the wrong predictions and 2 to 3 % of the right ones. docs/benchmarks.md has the shares on test
digits, also for other thresholds."""

MAX_ATTEMPTS = 5
"""Most attempts of a request, and the default: the pauses between them are 1.5 s together."""

_HEADER_NAME, _HEADER_VALUE = re.compile(r"[a-z0-9_.-]+"), re.compile(r"[\x20-\x7e]*")


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
    timeout_seconds: float | None = None
    """Deadline of a whole call: all its requests, with their retries. None gives each request `REQUEST_TIMEOUT_SECONDS`,
    so that a large input may take longer."""
    max_attempts: int = MAX_ATTEMPTS
    """How often a request is sent at most; 1 for no retries. It is sent again after UNAVAILABLE, or to the next replica if
    half of its remaining time passes without a response."""
    chunk_images: int = 128
    """Images per request. A server that batches rejects a request above its largest batch."""
    chunk_pictures: int = 32
    """Pictures per request, fewer if they would exceed `MAX_MESSAGE_BYTES`. The server decodes and prepares each picture,
    which takes longer than the prediction; a request of many pictures must still meet its deadline."""
    chunks_in_flight: int = 4
    """How many requests of one call are in flight at once."""
    tls: Tls | None = None
    """None for plain text: only for loopback and trusted networks."""
    channel_credentials: grpc.ChannelCredentials | None = None
    """Credentials made by the caller, such as TLS combined with tokens that expire; excludes `tls`."""
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = ()
    """Sent with every request, for gateways; gRPC calls them metadata. Names are in lower case."""

    def __post_init__(self) -> None:
        if not self.model_name:
            raise ValueError(f"model_name must not be empty; the trainer publishes {MODEL_NAME!r}")
        if self.version is not None and self.version_label is not None:
            raise ValueError(f"give a version ({self.version}) or a label ({self.version_label!r}), not both")
        if self.version is not None and not 0 <= self.version < 2**63:
            raise ValueError(f"version must be from 0 to 2^63 - 1, not {self.version}")
        if self.timeout_seconds is not None:
            check_seconds("timeout_seconds", self.timeout_seconds)
        if self.tls is not None and self.channel_credentials is not None:
            raise ValueError("give tls or channel_credentials, not both")
        for header, text in self.header_items():
            if not _HEADER_NAME.fullmatch(header) or header.startswith("grpc-") or not _HEADER_VALUE.fullmatch(text):
                raise ValueError(f"header {header!r} is invalid; names are in lower case, values in printable ASCII")
            if header.endswith("-bin"):
                raise ValueError(
                    f"header {header!r} is invalid; gRPC reserves names that end in -bin for binary values"
                )
        for name, value, largest in (
            ("max_attempts", self.max_attempts, MAX_ATTEMPTS),
            ("chunk_images", self.chunk_images, MAX_CHUNK_IMAGES),
            ("chunk_pictures", self.chunk_pictures, MAX_CHUNK_PICTURES),
            ("chunks_in_flight", self.chunks_in_flight, 1000),
        ):
            if not 1 <= value <= largest:
                raise ValueError(f"{name} must be from 1 to {largest}, not {value}")

    def header_items(self) -> tuple[tuple[str, str], ...]:
        """Return the headers as pairs."""
        return tuple(self.headers.items() if isinstance(self.headers, Mapping) else self.headers)


def check_seconds(name: str, value: float) -> None:
    """Raise a ValueError unless `value` is above 0 and at most `MAX_SECONDS`."""
    if not 0 < value <= MAX_SECONDS:  # NaN fails every comparison
        raise ValueError(f"{name} must be above 0 and at most {MAX_SECONDS:,} (a year), not {value:g}")
