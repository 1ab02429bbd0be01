"""The served models: a request's ModelSpec -> a lease on a loaded version."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from tensorflow_serving.apis import model_pb2

from serving.local_server.config import ModelSettings, ServerConfig
from serving.local_server.errors import StatusError, failed_precondition, invalid_argument, not_found
from serving.local_server.model.servable import Servable
from serving.local_server.versions.lifecycle import Version
from serving.local_server.versions.manager import VersionManager


class Models:
    """The models of a server by name. All methods are thread-safe.

    Args:
        config: Poll and retry settings.
        load: Returns a loaded and warmed-up Servable for a path, or raises StatusError.
        on_change: Called after every change of a version's state.
    """

    def __init__(self, config: ServerConfig, load: Callable[[Path], Servable], on_change: Callable[[], None]):
        self._config = config
        self._load = load
        self._on_change = on_change
        self._reloading = threading.Lock()
        self._changed = threading.Condition()
        self._stopped = False
        self._served: frozenset[str] = frozenset()
        self._managers: dict[str, VersionManager] = {}
        self._labels: dict[str, dict[str, int]] = {}

    def serve(self, models: Iterable[ModelSettings]) -> frozenset[str]:
        """Start to serve exactly these models, with their version policies, and return the names of new ones.

        A model that is no longer listed is unloaded. Existing versions keep serving while new ones load.
        """
        models = list(models)
        new = frozenset(model.name for model in models) - self._served
        for name in self._served - {model.name for model in models}:
            self._managers[name].watch(None)
        for model in models:
            if model.name not in self._managers:
                self._managers[model.name] = VersionManager(self._config, self._load, self._notify)
            self._managers[model.name].watch(model)
        self._served = frozenset(model.name for model in models)
        return new

    def set_labels(self, models: Iterable[ModelSettings]) -> None:
        """Replace all version labels.

        Raises:
            StatusError: FAILED_PRECONDITION; an existing label would move to a version that is not AVAILABLE.
        """
        for model in models:
            for label, version in model.version_labels.items():
                moves = self._labels.get(model.name, {}).get(label, version) != version
                if moves and not self._managers[model.name].is_version_available(version):
                    raise failed_precondition(
                        f"Request to assign label to {model.name} version {version}, which is not currently available for "
                        "inference"
                    )
        self._labels = {model.name: dict(model.version_labels) for model in models}

    def reload(self, models: Iterable[ModelSettings]) -> None:
        """Serve exactly these models and labels. Wait until every new model has an AVAILABLE version.

        Raises:
            StatusError: UNKNOWN if a new model cannot become available, UNAVAILABLE if the server stops meanwhile,
                FAILED_PRECONDITION as `set_labels`.
        """
        models = list(models)
        with self._reloading:
            new = self.serve(models)
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or all(self._is_settled(name) for name in new))
            if self._stopped:
                raise StatusError(grpc.StatusCode.UNAVAILABLE, "The server is stopping")
            failed = sorted(name for name in new if not self._managers[name].is_available)
            if failed:
                raise StatusError(
                    grpc.StatusCode.UNKNOWN, f"Some models did not become available: {{{', '.join(failed)}}}"
                )
            self.set_labels(models)

    def stop(self) -> None:
        """Stop polling and close every servable. No request may be in flight."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for manager in self._managers.values():
            manager.stop()

    @contextmanager
    def lease(self, spec: model_pb2.ModelSpec) -> Iterator[tuple[int, Servable]]:
        """Hold the version that `spec` selects; the version is not unloaded before the block ends.

        Raises:
            StatusError: INVALID_ARGUMENT for an empty name or an unknown label, NOT_FOUND for an unknown model or version.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        number = self._version_number(spec)
        described = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
        manager = self._managers.get(spec.name)
        if manager is None:
            raise not_found(f"Servable not found for request: {described}")
        with manager.lease(number, described) as leased:
            yield leased

    def statuses(self, name: str) -> list[Version]:
        """Return every version of a model since the start, the highest first; none for an unknown model."""
        manager = self._managers.get(name)
        return manager.statuses() if manager else []

    def __contains__(self, name: str) -> bool:
        return name in self._served

    @property
    def is_available(self) -> bool:
        """Whether every model has an AVAILABLE version."""
        return bool(self._served) and all(self._managers[name].is_available for name in self._served)

    @property
    def failure(self) -> str | None:
        """Why some model cannot become available, or None while all still can."""
        failures = [self._managers[name].failure for name in sorted(self._served)]
        return next((failure for failure in failures if failure), None)

    def _version_number(self, spec: model_pb2.ModelSpec) -> int | None:
        choice = spec.WhichOneof("version_choice")
        if choice == "version":
            return spec.version.value
        if choice == "version_label":
            labels = self._labels.get(spec.name, {})
            if spec.version_label not in labels:
                raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
            return labels[spec.version_label]
        return None

    def _is_settled(self, name: str) -> bool:
        return self._managers[name].is_available or self._managers[name].failure is not None

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
        self._on_change()
