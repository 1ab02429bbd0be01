"""Finds, loads, serves, drains and unloads the versions of a model.

The rules are TensorFlow Serving's. The versions selected by the policy are loaded, the highest number first. A version
that is no longer selected serves until a selected one is AVAILABLE; then it accepts no new requests, and it is unloaded
after its last response. A failed load is retried; after the last attempt the number is ignored while its directory stays.
The earlier version keeps serving meanwhile.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from serving.local_server.config import ModelSettings, ServerConfig
from serving.local_server.errors import StatusError, not_found
from serving.local_server.model.servable import Servable
from serving.local_server.versions.discovery import find_versions
from serving.local_server.versions.lifecycle import State, Version, next_to_load, next_to_unload

log = logging.getLogger(__name__)


class VersionManager:
    """Polls the base path in its own thread and keeps the versions selected by the policy loaded.

    Nothing happens before the first `watch`.

    Args:
        config: Poll and retry settings.
        load: Returns a loaded and warmed-up Servable for a path, or raises StatusError.
        on_change: Called from the polling thread after every change of a version's state.
    """

    def __init__(self, config: ServerConfig, load: Callable[[Path], Servable], on_change: Callable[[], None]):
        self._config = config
        self._load = load
        self._on_change = on_change
        self._lock = threading.Lock()
        self._versions: dict[int, Version] = {}
        self._model: ModelSettings | None = None
        self._wake = threading.Event()
        self._poll_now = self._stopping = False
        self._thread = threading.Thread(target=self._poll_until_stopped, name="versions", daemon=True)
        self._last_warning = ""

    def watch(self, model: ModelSettings | None) -> None:
        """Start to poll a model's base path, or another one from now on; None unloads every version."""
        with self._lock:
            self._model = model
            self._poll_now = True
        self._wake.set()
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Stop polling and close every servable. No request may be in flight."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        for version in self._versions.values():
            self._close(version)

    @contextmanager
    def lease(self, number: int | None, described: str) -> Iterator[tuple[int, Servable]]:
        """Hold a version for one request; the version is not unloaded before the block ends.

        Args:
            number: The version, or None for the highest AVAILABLE one.
            described: The request in TF Serving's words, for the error message.

        Raises:
            StatusError: NOT_FOUND; that version is not AVAILABLE, or none is.
        """
        with self._lock:
            version = self._find(number)
            if version is None or version.servable is None:
                raise not_found(f"Servable not found for request: {described}")
            version.in_flight += 1
        try:
            yield version.number, version.servable
        finally:
            with self._lock:
                version.in_flight -= 1
                drained = version.state == State.UNLOADING and not version.in_flight
            if drained:
                self._wake.set()

    def statuses(self) -> list[Version]:
        """Return every version found since the start, the highest first, including versions that ended."""
        with self._lock:
            return sorted(self._versions.values(), key=lambda version: -version.number)

    def is_version_available(self, number: int) -> bool:
        """Return whether version `number` is AVAILABLE."""
        with self._lock:
            return self._find(number) is not None

    @property
    def is_available(self) -> bool:
        """Whether some version is AVAILABLE."""
        return any(version.state == State.AVAILABLE for version in self.statuses())

    @property
    def failure(self) -> str | None:
        """Why no version can become AVAILABLE, or None while one still can or none was found."""
        versions = self.statuses()
        failed = [version for version in versions if version.state == State.END and version.error]
        if not failed or any(version.state != State.END for version in versions):
            return None
        reasons = "; ".join(f"version {version.number}: {version.error}" for version in failed)
        return f"{len(failed)} version(s) did not become available: {reasons}"

    def _find(self, number: int | None) -> Version | None:
        if number is not None:
            version = self._versions.get(number)
            return version if version and version.state == State.AVAILABLE else None
        serving = [version for version in self._versions.values() if version.state == State.AVAILABLE]
        return max(serving, key=lambda version: version.number, default=None)

    def _poll_until_stopped(self) -> None:
        next_poll = 0.0
        while not self._stopping:
            if self._poll_now or time.monotonic() >= next_poll:
                self._poll()
                next_poll = time.monotonic() + self._config.poll_wait_seconds
            while not self._stopping and self._act():
                pass
            self._wake.wait(max(0.0, next_poll - time.monotonic()))
            self._wake.clear()

    def _poll(self) -> None:
        with self._lock:
            self._poll_now = False
            model = self._model
        try:
            wanted = model.version_policy.choose(find_versions(model.base_path)) if model else {}
        except OSError as error:  # a mount that is away for a moment must not unload the versions that serve
            self._warn_once(f"cannot list the base path: {error}")
            return
        if model and not wanted:
            self._warn_once(f"found no version to serve in {model.base_path}; the name of a version is a number")
        with self._lock:
            for version in self._versions.values():
                version.is_wanted = version.number in wanted
            for number, path in wanted.items():
                self._want(number, path)

    def _want(self, number: int, path: Path) -> None:
        known = self._versions.get(number)
        if known is None or (known.state == State.END and not known.is_given_up):
            self._versions[number] = Version(number, path)

    def _act(self) -> bool:
        """Take the next step and return whether there may be another one."""
        with self._lock:
            self._forget_unwanted_failures()
            versions = list(self._versions.values())
        for version in versions:
            if version.state == State.UNLOADING and not version.in_flight:
                self._close(version)
                return self._changed(version, State.END)
        if leaving := next_to_unload(versions):
            return self._changed(leaving, State.UNLOADING)
        if coming := next_to_load(versions):
            self._try_to_load(coming)
            return True
        return False

    def _forget_unwanted_failures(self) -> None:
        # If the directory comes back, loading is attempted again, as in TF Serving. Until then the state is END.
        for version in self._versions.values():
            if not version.is_wanted and not version.servable:
                version.state = State.END
                version.is_given_up = False

    def _try_to_load(self, version: Version) -> None:
        self._changed(version, State.LOADING)
        log.info("loading version %d from %s", version.number, version.path)
        version.attempts += 1
        try:
            version.servable = self._load(version.path)
        except StatusError as error:
            self._load_failed(version, error)
            return
        except Exception as error:
            # A version that fails in an unexpected way must not end the thread that finds the next version.
            message = f"{type(error).__name__}: {error}"
            self._load_failed(version, StatusError(grpc.StatusCode.INTERNAL, message))
            return
        version.error = None
        log.info("version %d is available", version.number)
        self._changed(version, State.AVAILABLE)

    def _load_failed(self, version: Version, error: StatusError) -> None:
        log.error("version %d failed to load (attempt %d): %s", version.number, version.attempts, error)
        if version.attempts > self._config.max_load_retries:
            version.error = error
            version.is_given_up = True
            self._changed(version, State.END)
        else:
            version.retry_at = time.monotonic() + self._config.load_retry_interval_seconds

    def _changed(self, version: Version, state: State) -> bool:
        with self._lock:
            version.state = state
        self._on_change()
        return True

    def _close(self, version: Version) -> None:
        if version.servable:
            version.servable.close()
            version.servable = None
            log.info("version %d is unloaded", version.number)

    def _warn_once(self, warning: str) -> None:
        if warning != self._last_warning:  # not at every poll
            log.warning(warning)
        self._last_warning = warning
