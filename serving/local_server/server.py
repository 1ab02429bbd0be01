"""The TensorFlow Serving gRPC API for one machine: laptops, tests and demos.

    python -m serving serve artifacts/models/digits

answers Predict, GetModelMetadata and GetModelStatus as TensorFlow Serving does, finds new versions as it does, and
loads them through the same Session path, so that what works here works there. It is not made for production: for that,
give the same folder to the `tensorflow/serving` container.

In a test:

    with LocalServer(models_dir, port=0) as server:
        channel = grpc.insecure_channel(server.target)

This module imports neither TensorFlow nor gRPC before a server starts.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from serving import contract
from serving.local_server.config import ServerConfig
from serving.local_server.discovery import VersionPolicy

if TYPE_CHECKING:
    from serving.local_server.runtime import Runtime


class LocalServer:
    """Serves the versions under one base path. As a context manager it waits until the first one is AVAILABLE.

    Like TensorFlow Serving it opens no port before that: with an empty or missing base path it polls on, and `target`
    stays None. `start` returns at once; `wait_until_serving` waits.

    Args:
      base_path: the folder whose numeric children are the versions.
      start_timeout_seconds: how long entering the context may take.
      **settings: fields of `ServerConfig`; `port=0` takes a free port.
    """

    def __init__(self, base_path: str | os.PathLike[str], *, start_timeout_seconds: float = 60.0, **settings: Any):
        self.config = ServerConfig(base_path=Path(base_path), **{"port": 0, **settings})
        self._start_timeout_seconds = start_timeout_seconds
        self._runtime: Runtime | None = None

    @property
    def target(self) -> str | None:
        """`host:port` for a gRPC channel; None while no port is open."""
        return self._address(self._runtime.port if self._runtime else None)

    @property
    def metrics_target(self) -> str | None:
        """`host:port` of the Prometheus page; None without one."""
        return self._address(self._runtime.metrics_port if self._runtime else None)

    def start(self) -> None:
        """Begins to poll and load. Raises OSError where a port is taken."""
        from serving.local_server.runtime import Runtime

        self._runtime = Runtime(self.config)

    def wait_until_serving(self, timeout_seconds: float | None = None) -> bool:
        """Returns whether the port is open, after at most `timeout_seconds`; None waits for ever.

        Raises:
          RuntimeError: every version found was given up; TensorFlow Serving would exit.
        """
        assert self._runtime, "start() comes first"
        return self._runtime.wait_until_serving(timeout_seconds)

    def stop(self, grace_period_seconds: float | None = None) -> None:
        """Takes no new requests, lets those in flight finish within the grace period, and frees everything."""
        if self._runtime:
            grace = self.config.grace_period_seconds if grace_period_seconds is None else grace_period_seconds
            self._runtime.stop(grace)
            self._runtime = None

    def __enter__(self) -> Self:
        self.start()
        try:
            if not self.wait_until_serving(self._start_timeout_seconds):
                raise TimeoutError(
                    f"no version under {self.config.base_path} became available in {self._start_timeout_seconds} s"
                )
        except BaseException:
            self.stop(0)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop(0 if error else None)

    def _address(self, port: int | None) -> str | None:
        return None if port is None else f"{self.config.host}:{port}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `python -m serving serve`. Where TensorFlow Serving has the setting, so is its default."""
    defaults = ServerConfig(base_path=Path())
    add = parser.add_argument
    parser.description = (
        "Serve a folder of versions with TensorFlow Serving's gRPC API on this machine: for laptops, tests and demos. "
        "For production give the same folder to the tensorflow/serving container."
    )
    add("base_path", type=Path, metavar="MODELS_DIR", help="folder whose numeric children are the versions")
    add("--model-name", default=contract.MODEL_NAME, help="name that requests must give (default %(default)s)")
    add("--host", default=defaults.host, help="address to listen on; 0.0.0.0 for all (default %(default)s)")
    add("--port", type=int, default=defaults.port, help="gRPC port; 0 takes a free one (default %(default)s)")
    add("--metrics-port", type=int, help="serve Prometheus metrics there; 0 takes a free port (default: none)")
    add("--poll-wait-seconds", type=float, default=defaults.poll_wait_seconds, help="between looks at the folder")
    policy = parser.add_mutually_exclusive_group()
    policy.add_argument("--latest", type=int, metavar="N", help="serve the latest N versions (default 1)")
    policy.add_argument("--all-versions", action="store_true", help="serve every version")
    policy.add_argument("--versions", type=int, nargs="+", metavar="V", help="serve just these versions")
    add("--label", type=_label, action="append", default=[], metavar="NAME=VERSION", help="may be given repeatedly")
    add("--max-load-retries", type=int, default=defaults.max_load_retries)
    add("--load-retry-interval-seconds", type=float, default=defaults.load_retry_interval_seconds)
    add("--max-batch-size", type=int, default=defaults.max_batch_size, help="rows in one run (default %(default)s)")
    add("--batch-timeout-seconds", type=float, default=defaults.batch_timeout_seconds)
    add("--max-enqueued-batches", type=int, default=defaults.max_enqueued_batches)
    add("--batch-threads", type=int, default=defaults.batch_threads)
    add("--max-message-bytes", type=int, default=defaults.max_message_bytes)
    add("--grace-period-seconds", type=float, default=defaults.grace_period_seconds, help="to finish on SIGTERM")
    add("--intra-op-threads", type=int, default=defaults.intra_op_threads)
    add("--inter-op-threads", type=int, default=defaults.inter_op_threads)


def run(args: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT, then drains. Returns the exit status.

    0 after a signal, 1 where nothing could be served, 2 for a setting out of range.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is imported
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # It warns that the v1 loading path is deprecated, which is the very path this server is held to.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        server = LocalServer(args.base_path, **_settings(args))
        server.start()
    except ValueError as error:
        print(f"python -m serving serve: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"cannot serve {args.base_path}: {error}", file=sys.stderr)
        return 1
    try:
        _serve_until(stopping, server)
    except RuntimeError as error:
        print(f"cannot serve {args.base_path}: {error}", file=sys.stderr)
        return 1
    finally:
        server.stop()
    return 0


def _serve_until(stopping: threading.Event, server: LocalServer) -> None:
    while not stopping.is_set() and not server.wait_until_serving(0.2):
        pass
    if server.target:
        print(f"serving {server.config.model_name} on {server.target}", flush=True)
    if server.metrics_target:
        print(f"metrics on http://{server.metrics_target}/monitoring/prometheus/metrics", flush=True)
    stopping.wait()


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    flags = vars(args)
    named = {name: flags[name] for name in ServerConfig.__dataclass_fields__ if name in flags and name != "base_path"}
    return {**named, "version_policy": _policy(args), "version_labels": dict(args.label)}


def _policy(args: argparse.Namespace) -> VersionPolicy:
    if args.all_versions:
        return VersionPolicy.all()
    if args.versions:
        return VersionPolicy.specific(*args.versions)
    return VersionPolicy.latest(1 if args.latest is None else args.latest)


def _label(text: str) -> tuple[str, int]:
    name, separator, version = text.rpartition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VERSION")
    return name, int(version)
