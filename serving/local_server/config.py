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


MAX_SECONDS = 366 * 24 * 3600
"""Longest duration: a year. Timers of the operating system overflow at some longer one."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """One model of a server: an entry of TF Serving's `model_config_list`."""

    name: str
    """Name of the model in requests."""

    base_path: Path
    """Folder whose numeric children are the versions. It may be empty or missing at start."""

    version_policy: VersionPolicy = field(default_factory=VersionPolicy)
    """Selects the versions to serve (`model_version_policy`)."""

    version_labels: Mapping[str, int] = field(default_factory=dict)
    """Label -> version (`version_labels`). A new label may name a version that is not loaded, as with
    `--allow_version_labels_for_unavailable_models`; a request with that label is NOT_FOUND."""


@dataclass(frozen=True, kw_only=True)
class BatchingParameters:
    """TF Serving's `BatchingParameters`. Raises ValueError for a value out of range."""

    max_batch_size: int = 1000
    """Most rows in one request; a larger one is INVALID_ARGUMENT. Also the most rows in one run, unless large batches are
    split."""

    batch_timeout_micros: int | None = None
    """How long a run waits for more rows; 0 never waits. None adapts to the load: a run waits, at most 2 ms, for as many
    requests as the previous run had. TF Serving's default is 0."""

    max_enqueued_batches: int = 10
    """Full batches that may wait; further requests are UNAVAILABLE."""

    num_batch_threads: int = 1
    """Batches that run at the same time. TensorFlow uses every core for one batch already; TF Serving's default is one
    thread per core."""

    allowed_batch_sizes: tuple[int, ...] = ()
    """A run is padded to the next of these sizes, which increase up to the most rows in one run; empty: no padding."""

    enable_large_batch_splitting: bool = False
    """Splits requests with more than `max_execution_batch_size` rows over several runs."""

    max_execution_batch_size: int | None = None
    """Most rows in one run if large batches are split; None: `max_batch_size`."""

    @property
    def max_run_size(self) -> int:
        """Most rows in one run."""
        split = self.enable_large_batch_splitting and self.max_execution_batch_size is not None
        return self.max_execution_batch_size if split else self.max_batch_size  # type: ignore[return-value]

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            _check(name, getattr(self, name), lowest=1, highest=2**31 - 1)
        _check("batch_timeout_micros", self.batch_timeout_micros or 0, lowest=0)
        _check("max_execution_batch_size", self.max_run_size, lowest=1, highest=self.max_batch_size)
        sizes = self.allowed_batch_sizes
        if sizes and (list(sizes) != sorted({*sizes}) or sizes[0] < 1 or sizes[-1] != self.max_run_size):
            raise ValueError(
                f"allowed_batch_sizes is {list(sizes)}; it must increase from at least 1 to {self.max_run_size}"
            )


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """The settings of one server. Raises ValueError for a value out of range."""

    base_path: Path | None = None
    """Folder of the only model; None with a `model_config_file`."""

    model_config_file: Path | None = None
    """Text file with TF Serving's `ModelServerConfig`: one or more models (`--model_config_file`)."""

    model_name: str = contract.MODEL_NAME
    """Name of the only model in requests."""

    version_policy: VersionPolicy = field(default_factory=VersionPolicy)
    """Version policy of the only model."""

    version_labels: Mapping[str, int] = field(default_factory=dict)
    """Version labels of the only model."""

    host: str = "127.0.0.1"
    """Address to listen on, such as `::1`; `0.0.0.0` for every interface, `::` for those of IPv6 too."""

    port: int = 8500
    """gRPC port; 0 takes a free one."""

    grpc_socket_path: str = ""
    """UNIX socket for gRPC besides the port (`--grpc_socket_path`); empty: none."""

    grpc_channel_arguments: str = ""
    """gRPC options, `name=value,name=value` (`--grpc_channel_arguments`)."""

    ssl_config_file: Path | None = None
    """Text file with TF Serving's `SSLConfig`: certificates for gRPC (`--ssl_config_file`)."""

    enable_grpc_healthcheck_service: bool = False
    """Whether to serve `grpc.health.v1.Health`."""

    rest_port: int | None = None
    """REST port, also for Prometheus metrics (`--rest_api_port`); 0 takes a free one, None disables both."""

    rest_timeout_seconds: float = 30.0
    """Deadline of a REST request (`--rest_api_timeout_in_ms`)."""

    poll_wait_seconds: float = 1.0
    """Seconds between polls of the base path (`--file_system_poll_wait_seconds`)."""

    max_load_retries: int = 5
    """Retries of a failed load (`--max_num_load_retries`). Then the version is ignored while its directory stays."""

    load_retry_interval_seconds: float = 60.0
    """Seconds before a failed load is retried (`--load_retry_interval_micros`)."""

    batching: BatchingParameters | None = None
    """Joins requests into larger runs (`--enable_batching`); None runs every request alone."""

    max_message_bytes: int = UNLIMITED_MESSAGE_BYTES
    """Largest request; a larger one is RESOURCE_EXHAUSTED."""

    max_tensor_bytes: int = 256 * 1024 * 1024
    """Largest input tensor; a larger one is INVALID_ARGUMENT. TF Serving has no such limit and allocates whatever a shape
    claims."""

    grace_period_seconds: float = 30.0
    """Seconds that requests in flight have to finish after SIGTERM."""

    intra_op_threads: int = 0
    """Threads inside one operation (`--tensorflow_intra_op_parallelism`); 0 means one per core, which helps large batches.
    1 makes single images and pictures faster: their operations are too small to be split."""

    inter_op_threads: int = 0
    """Operations that run at the same time (`--tensorflow_inter_op_parallelism`); 0 means one per core."""

    @property
    def single_model(self) -> ModelSettings | None:
        """The only model's settings; None with a `model_config_file`."""
        if self.base_path is None:
            return None
        return ModelSettings(
            name=self.model_name,
            base_path=self.base_path,
            version_policy=self.version_policy,
            version_labels=self.version_labels,
        )

    def address(self, port: int) -> str:
        """Return `host:port`, with an IPv6 address in brackets."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", self.host.removeprefix("[").removesuffix("]"))
        if (self.base_path is None) == (self.model_config_file is None):
            raise ValueError("give either a models directory or a model_config_file")
        if self.model_config_file is not None and (self.version_labels or self.version_policy != VersionPolicy()):
            raise ValueError(f"versions and labels are those of {self.model_config_file}; give none besides")
        if self.base_path is not None:
            object.__setattr__(self, "base_path", Path(os.fspath(self.base_path)))
        if not self.model_name:
            raise ValueError("model_name is empty; requests need a name")
        for name in ("port", "rest_port"):
            _check(name, getattr(self, name) or 0, lowest=0, highest=65535)
        if self.port and self.port == self.rest_port:
            raise ValueError(f"port and rest_port are both {self.port}; they must differ")
        for name in ("max_message_bytes", "max_tensor_bytes"):
            _check(name, getattr(self, name), lowest=1, highest=UNLIMITED_MESSAGE_BYTES)
        for name in ("max_load_retries", "intra_op_threads", "inter_op_threads"):
            _check(name, getattr(self, name), lowest=0)
        for name in ("load_retry_interval_seconds", "grace_period_seconds"):
            _check(name, getattr(self, name), lowest=0, highest=MAX_SECONDS)
        for name in ("poll_wait_seconds", "rest_timeout_seconds"):
            if not 0 < getattr(self, name) <= MAX_SECONDS:  # NaN fails every comparison
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0 and at most {MAX_SECONDS}")


def _check(name: str, value: float, *, lowest: float, highest: float = float("inf")) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value}; it must be between {lowest} and {highest}")
