"""TensorFlow Serving's gRPC and REST APIs for one machine: laptops, tests and demos.

    with LocalServer(models_dir) as server:
        channel = grpc.insecure_channel(server.target)

The server returns TensorFlow Serving's responses and status codes, finds new versions by its rules, and loads them through
the same Session path. For production, give the same folder to the `tensorflow/serving` container. This module imports
neither TensorFlow nor gRPC before a server starts.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from serving.local_server.config import ServerConfig

if TYPE_CHECKING:
    from serving.local_server.runtime import Runtime


class LocalServer:
    """Serves the versions in one base path, or several models. The context manager waits until they are AVAILABLE.

    As in TensorFlow Serving no port is open before that: with an empty or missing base path the server polls on, and
    `target` is None. `start` returns at once; `wait_until_serving` waits.

    Args:
        base_path: Folder whose numeric children are the versions; None with the setting `model_config_file`.
        start_timeout_seconds: How long entering the context may take.
        **settings: Fields of `ServerConfig`; by default `port` is 0, a free one.
    """

    def __init__(
        self, base_path: str | os.PathLike[str] | None = None, *, start_timeout_seconds: float = 60.0, **settings: Any
    ):
        path = None if base_path is None else Path(base_path)
        self.config = ServerConfig(base_path=path, **{"port": 0, **settings})
        self._start_timeout_seconds = start_timeout_seconds
        self._runtime: Runtime | None = None

    @property
    def target(self) -> str | None:
        """`host:port` for a gRPC channel, or None while no port is open."""
        return self._address(self._runtime.port if self._runtime else None)

    @property
    def rest_target(self) -> str | None:
        """`host:port` of the REST API, or None without it or while no port is open."""
        return self._address(self._runtime.rest_port if self._runtime else None)

    def start(self) -> None:
        """Start to poll and load.

        Raises:
            OSError: A port is taken or a file cannot be read.
            ValueError: A configuration file is not valid.
        """
        from serving.local_server.runtime import Runtime

        self._runtime = Runtime(self.config)

    def wait_until_serving(self, timeout_seconds: float | None = None) -> bool:
        """Wait at most `timeout_seconds` (None: without limit) and return whether the port is open.

        Raises:
            RuntimeError: Every version failed to load. TensorFlow Serving exits then.
        """
        assert self._runtime, "call start() first"
        return self._runtime.wait_until_serving(timeout_seconds)

    def stop(self, grace_period_seconds: float | None = None) -> None:
        """Reject new requests, wait for those in flight for at most the grace period, and free all resources."""
        if self._runtime:
            grace = self.config.grace_period_seconds if grace_period_seconds is None else grace_period_seconds
            self._runtime.stop(grace)
            self._runtime = None

    def __enter__(self) -> Self:
        self.start()
        try:
            if not self.wait_until_serving(self._start_timeout_seconds):
                where = self.config.base_path or self.config.model_config_file
                raise TimeoutError(f"no version under {where} became available in {self._start_timeout_seconds} s")
        except BaseException:
            self.stop(0)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop(0 if error else None)

    def _address(self, port: int | None) -> str | None:
        return None if port is None else self.config.address(port)
