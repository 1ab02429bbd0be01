"""Every setting of the local server. Names and defaults are TensorFlow Serving's wherever it has the setting.

Imports nothing heavy, so that `--help` answers at once.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serving import contract
from serving.local_server.discovery import VersionPolicy

UNLIMITED_MESSAGE_BYTES = 2**31 - 1
"""TF Serving accepts messages up to the largest 32-bit size."""


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Raises ValueError for a value out of range."""

    base_path: Path
    """The folder whose numeric children are the versions. It may be empty or missing at start."""

    model_name: str = contract.MODEL_NAME
    """The name that requests must give."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every interface."""

    port: int = 8500
    """gRPC port; 0 takes a free one."""

    metrics_port: int | None = None
    """Prometheus port; 0 takes a free one, None serves no metrics."""

    poll_wait_seconds: float = 1.0
    """Pause between two looks at the base path (`--file_system_poll_wait_seconds`)."""

    version_policy: VersionPolicy = field(default_factory=VersionPolicy)
    """Which of the versions on disk to serve (`model_version_policy`)."""

    version_labels: Mapping[str, int] = field(default_factory=dict)
    """Label -> version (`version_labels`). A label may name a version that is not there yet, as with
    `--allow_version_labels_for_unavailable_models`; asking for it is then NOT_FOUND."""

    max_load_retries: int = 5
    """How often a failed load is tried again (`--max_num_load_retries`). Then that number is given up for good."""

    load_retry_interval_seconds: float = 60.0
    """Pause before a failed load is tried again (`--load_retry_interval_micros`)."""

    max_batch_size: int = 1000
    """Most rows in one run of the model; a request with more is INVALID_ARGUMENT (`max_batch_size`)."""

    batch_timeout_seconds: float | None = None
    """How long a run may wait for more rows (`batch_timeout_micros`); 0 never waits, None adapts to the load: it waits
    for as many requests as the last run answered, at most 2 ms."""

    max_enqueued_batches: int = 8
    """Full batches that may wait; beyond them requests are UNAVAILABLE (`max_enqueued_batches`)."""

    batch_threads: int = 1
    """Batches run at the same time (`num_batch_threads`). TensorFlow already uses every core for one batch."""

    max_message_bytes: int = UNLIMITED_MESSAGE_BYTES
    """Largest request; a larger one is RESOURCE_EXHAUSTED."""

    grace_period_seconds: float = 30.0
    """On SIGTERM, how long requests in flight may take to finish."""

    intra_op_threads: int = 0
    """Threads inside one operation (`--tensorflow_intra_op_parallelism`); 0 = one per core, which large batches gain from.
    With 1, single requests and pictures are answered sooner: their operations are too small to be shared."""

    inter_op_threads: int = 0
    """Operations run side by side (`--tensorflow_inter_op_parallelism`); 0 = one per core."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_path", Path(os.fspath(self.base_path)))
        if not self.model_name:
            raise ValueError("model_name is empty; requests could never name it")
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
