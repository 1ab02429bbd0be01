"""Every setting of the local server. TensorFlow Serving's settings have its names and defaults.

This module imports neither TensorFlow nor gRPC, so that `--help` is fast.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving import contract
from serving.local_server.versions.discovery import VersionPolicy

UNLIMITED_MESSAGE_BYTES = 2**31 - 1
"""TF Serving accepts messages up to the largest 32-bit size."""


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The settings of one server. Raises ValueError for a value out of range."""

    base_path: Path
    """Folder whose numeric children are the versions. It may be empty or missing at start."""

    model_name: str = contract.MODEL_NAME
    """Name of the model in requests."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every interface."""

    port: int = 8500
    """gRPC port; 0 takes a free one."""

    metrics_port: int | None = None
    """Port for Prometheus metrics; 0 takes a free one, None disables them."""

    poll_wait_seconds: float = 1.0
    """Seconds between polls of the base path (`--file_system_poll_wait_seconds`)."""

    version_policy: VersionPolicy = field(default_factory=VersionPolicy)
    """Selects the versions to serve (`model_version_policy`)."""

    version_labels: Mapping[str, int] = field(default_factory=dict)
    """Label -> version (`version_labels`). A label may name a version that is not loaded, as with
    `--allow_version_labels_for_unavailable_models`; a request with that label is NOT_FOUND."""

    max_load_retries: int = 5
    """Retries of a failed load (`--max_num_load_retries`). Then the version is ignored while its directory stays."""

    load_retry_interval_seconds: float = 60.0
    """Seconds before a failed load is retried (`--load_retry_interval_micros`)."""

    max_batch_size: int = 1000
    """Most rows in one run of the model; a request with more is INVALID_ARGUMENT (`max_batch_size`)."""

    batch_timeout_seconds: float | None = None
    """Seconds that a run waits for more rows (`batch_timeout_micros`); 0 never waits, None adapts to the load: a run
    waits, at most 2 ms, for as many requests as the previous run had."""

    max_enqueued_batches: int = 8
    """Full batches that may wait (`max_enqueued_batches`); further requests are UNAVAILABLE."""

    batch_threads: int = 1
    """Batches that run at the same time (`num_batch_threads`). TensorFlow uses every core for one batch already."""

    max_message_bytes: int = UNLIMITED_MESSAGE_BYTES
    """Largest request; a larger one is RESOURCE_EXHAUSTED."""

    grace_period_seconds: float = 30.0
    """Seconds that requests in flight have to finish after SIGTERM."""

    intra_op_threads: int = 0
    """Threads inside one operation (`--tensorflow_intra_op_parallelism`); 0 means one per core, which helps large batches.
    1 makes single images and pictures faster: their operations are too small to be split."""

    inter_op_threads: int = 0
    """Operations that run at the same time (`--tensorflow_inter_op_parallelism`); 0 means one per core."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_path", Path(os.fspath(self.base_path)))
        if not self.model_name:
            raise ValueError("model_name is empty; requests need a name")
        for name in ("port", "metrics_port"):
            _check(name, getattr(self, name) or 0, lowest=0, highest=65535)
        for name in ("max_batch_size", "max_enqueued_batches", "batch_threads", "max_message_bytes"):
            _check(name, getattr(self, name), lowest=1, highest=UNLIMITED_MESSAGE_BYTES)
        for name in ("max_load_retries", "intra_op_threads", "inter_op_threads"):
            _check(name, getattr(self, name), lowest=0)
        for name in ("load_retry_interval_seconds", "grace_period_seconds"):
            _check(name, getattr(self, name), lowest=0)
        if self.poll_wait_seconds <= 0:
            raise ValueError(f"poll_wait_seconds is {self.poll_wait_seconds}; it must be above 0")


def _check(name: str, value: float, *, lowest: float, highest: float = float("inf")) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value}; it must be between {lowest} and {highest}")
