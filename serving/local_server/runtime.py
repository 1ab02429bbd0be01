"""A running server: the polling threads, the batching threads, and the event loop of both transports."""

import asyncio
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import serving.local_server.metrics as names
from serving.local_server.api.service import Service
from serving.local_server.api.warmup import replay_warmup
from serving.local_server.config import ServerConfig
from serving.local_server.errors import StatusError
from serving.local_server.grpc_server import parse_channel_arguments, start_server
from serving.local_server.metrics import Metrics
from serving.local_server.model.batching import Batcher
from serving.local_server.model.servable import Servable
from serving.local_server.rest_server import RestServer
from serving.local_server.text_files import read_server_credentials
from serving.local_server.versions.model_config import read_model_config
from serving.local_server.versions.models import Models


class Runtime:
    """A started server. Its ports open when every model has an AVAILABLE version, as in TensorFlow Serving.

    Raises:
        OSError: A port is taken or a file cannot be read.
        ValueError: A configuration file is not valid.
    """

    def __init__(self, config: ServerConfig):
        self._config = config
        models = [config.single_model] if config.single_model else read_model_config(config.model_config_file)  # type: ignore[arg-type]
        parse_channel_arguments(config.grpc_channel_arguments)
        if config.ssl_config_file:
            read_server_credentials(config.ssl_config_file)
        if config.port:
            _check_port_is_free(config.host, config.port)
        self._rest_listener = None if config.rest_port is None else _bind(config.host, config.rest_port)
        self.port: int | None = None
        self.rest_port: int | None = None
        self._metrics = Metrics()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._stop_with_grace: asyncio.Future[float] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run_loop, name="event-loop", daemon=True)
        # Guards `_opened` and `_stopping`: a version that finishes loading while the server stops must not open the ports.
        self._opening = threading.Lock()
        self._opened = self._stopping = False
        self._batcher = Batcher(config.batching)
        self._models = Models(config, self._load, self._on_change)
        self._models.serve(models)
        self._models.set_labels(models)

    def wait_until_serving(self, timeout_seconds: float | None) -> bool:
        """Return whether the ports are open. Raise RuntimeError if a model cannot become available."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.port is not None or self._error or self._models.failure, timeout_seconds
            )
        if self._error:
            raise self._error
        if self.port is None and (failure := self._models.failure):
            raise RuntimeError(failure)
        return self.port is not None

    def stop(self, grace_period_seconds: float) -> None:
        """Stop all parts, in the order in which a request passes them."""
        with self._opening:
            self._stopping = True
        if self._opened:
            self._loop.call_soon_threadsafe(self._request_stop, grace_period_seconds)
            self._thread.join()
        self._batcher.close()
        self._models.stop()
        # In a thread of its own: the caller may be inside another event loop, as a cell of a notebook is.
        closing = threading.Thread(target=self._close_loop, name="close-event-loop")
        closing.start()
        closing.join()
        if self._rest_listener:
            self._rest_listener.close()

    def _close_loop(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

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
        try:
            replay_warmup(servable, max_tensor_bytes=self._config.max_tensor_bytes)
        except StatusError as error:
            outcome = error.code.name
            raise
        finally:
            elapsed = time.perf_counter() - started
            self._metrics.observe(names.WARMUP_LATENCY, elapsed, model_path=str(servable.path), status=outcome)

    def _on_change(self) -> None:
        with self._opening:
            if not self._opened and not self._stopping and self._models.is_available:
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
        service = Service(self._models, self._batcher, self._metrics, max_tensor_bytes=self._config.max_tensor_bytes)
        grpc_server, port = await start_server(self._config, service)
        rest_server = None
        if self._rest_listener:
            rest_server = RestServer(self._config, service, self._metrics, self._rest_listener)
            await rest_server.wait_until_started()
            self.rest_port = self._rest_listener.getsockname()[1]
        self.port = port
        with self._changed:
            self._changed.notify_all()
        grace_period_seconds = await self._stop_with_grace
        stopping = [grpc_server.stop(grace_period_seconds)]
        if rest_server:
            stopping.append(rest_server.stop(grace_period_seconds))
        await asyncio.gather(*stopping)

    def _request_stop(self, grace_period_seconds: float) -> None:
        if not self._stop_with_grace.done():
            self._stop_with_grace.set_result(grace_period_seconds)


def _check_port_is_free(host: str, port: int) -> None:
    # Fails before the model loads. `create_server` sets SO_REUSEADDR: connections of an earlier server do not count.
    with closing(socket.create_server((host, port), family=_family(host), backlog=1)):
        pass


def _bind(host: str, port: int) -> socket.socket:
    # Bound now, so that a taken port fails before the model loads; listening starts with the first available version.
    # With the protocol given, asyncio sets TCP_NODELAY; otherwise every response takes 40 ms longer.
    listener = socket.socket(_family(host), socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
