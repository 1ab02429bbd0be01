"""A running server: the polling thread, the batching threads, the event loop and the metrics page."""

import asyncio
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import serving.local_server.metrics as names
from serving.local_server.api.predict import Limits
from serving.local_server.api.warmup import replay_warmup
from serving.local_server.config import ServerConfig
from serving.local_server.errors import StatusError
from serving.local_server.grpc_server import Servicer, start_server
from serving.local_server.metrics import Metrics, MetricsPage
from serving.local_server.model.batching import Batcher
from serving.local_server.model.servable import Servable
from serving.local_server.versions.manager import VersionManager


class Runtime:
    """A started server. The gRPC port opens when the first version is AVAILABLE, as in TensorFlow Serving.

    Raises OSError if a port is taken.
    """

    def __init__(self, config: ServerConfig):
        self._config = config
        if config.port:
            _check_port_is_free(config.host, config.port)
        self._metrics = Metrics()
        self._page = None
        if config.metrics_port is not None:
            self._page = MetricsPage(self._metrics, config.host, config.metrics_port)
        self.metrics_port = self._page.port if self._page else None
        self.port: int | None = None
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._stop_with_grace: asyncio.Future[float] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run_loop, name="grpc", daemon=True)
        # Guards `_opened` and `_stopping`: a version that finishes loading while the server stops must not open the port.
        self._opening = threading.Lock()
        self._opened = self._stopping = False
        self._batcher = Batcher(
            max_batch_size=config.max_batch_size,
            max_enqueued_batches=config.max_enqueued_batches,
            timeout_seconds=config.batch_timeout_seconds,
            threads=config.batch_threads,
        )
        self._versions = VersionManager(config, self._load, self._on_change)
        self._versions.start()

    def wait_until_serving(self, timeout_seconds: float | None) -> bool:
        """Returns whether the port is open. Raises RuntimeError if no version can become AVAILABLE."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.port is not None or self._error or self._versions.failure, timeout_seconds
            )
        if self._error:
            raise self._error
        if self.port is None and (failure := self._versions.failure):
            raise RuntimeError(failure)
        return self.port is not None

    def stop(self, grace_period_seconds: float) -> None:
        """Stops all parts, in the order in which a request passes them."""
        with self._opening:
            self._stopping = True
        if self._opened:
            self._loop.call_soon_threadsafe(self._ask_to_stop, grace_period_seconds)
            self._thread.join()
        self._batcher.close()
        self._versions.stop()
        self._loop.close()
        if self._page:
            self._page.close()

    def _load(self, path: Path) -> Servable:
        outcome = "fail"
        try:
            servable = Servable(
                path,
                intra_op_threads=self._config.intra_op_threads,
                inter_op_threads=self._config.inter_op_threads,
            )
            outcome = "success"
        finally:
            self._metrics.count(names.LOAD_ATTEMPTS, model_path=str(path), status=outcome)
        try:
            self._warm_up(servable)
        except BaseException:
            servable.close()
            raise
        return servable

    def _warm_up(self, servable: Servable) -> None:
        started, outcome = time.perf_counter(), "OK"
        limits = Limits(max_rows=self._config.max_batch_size, max_bytes=self._config.max_message_bytes)
        try:
            replay_warmup(servable, limits)
        except StatusError as error:
            outcome = error.code.name
            raise
        finally:
            elapsed = time.perf_counter() - started
            self._metrics.observe(names.WARMUP_LATENCY, elapsed, model_path=str(servable.path), status=outcome)

    def _on_change(self) -> None:
        with self._opening:
            if not self._opened and not self._stopping and self._versions.is_available:
                self._opened = True
                self._thread.start()
        with self._changed:
            self._changed.notify_all()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._error = error
            with self._changed:
                self._changed.notify_all()

    async def _serve(self) -> None:
        servicer = Servicer(self._config, self._versions, self._batcher, self._metrics)
        server, port = await start_server(self._config, servicer, self._metrics)
        self.port = port
        with self._changed:
            self._changed.notify_all()
        grace_period_seconds = await self._stop_with_grace
        await server.stop(grace_period_seconds)

    def _ask_to_stop(self, grace_period_seconds: float) -> None:
        if not self._stop_with_grace.done():
            self._stop_with_grace.set_result(grace_period_seconds)


def _check_port_is_free(host: str, port: int) -> None:
    # Fails before the model loads. `create_server` sets SO_REUSEADDR: connections of an earlier server do not count.
    with closing(socket.create_server((host, port), backlog=1)):
        pass
