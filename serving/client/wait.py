"""The wait until a version is AVAILABLE: decides after each status response. The clients send requests and sleep."""

from __future__ import annotations

import time
from collections.abc import Sequence

from serving.client.errors import DeadlineError, NotFoundError, NotReadyError, ServingError, UnavailableError
from serving.client.results import VersionStatus

POLL_SECONDS = 0.2
"""Pause between two status requests."""

TRANSIENT_ERRORS = (UnavailableError, NotFoundError, DeadlineError)
"""Errors of a server that is still starting, or that has not loaded the version yet."""


class Wait:
    """One wait, for `version`, or with None for whichever version is AVAILABLE first."""

    def __init__(self, version: int | None, timeout_seconds: float) -> None:
        self._version, self._timeout_seconds = version, timeout_seconds
        self._end = time.monotonic() + timeout_seconds
        self._last_seen: str | None = None
        self._last_error: ServingError | None = None

    def next_timeout_seconds(self) -> float:
        """Return the deadline for the next status request. The first request is always sent.

        Raises:
            NotReadyError: when the time is over.
        """
        remaining = self._end - time.monotonic()
        if remaining <= 0 and self._last_seen is not None:
            raise NotReadyError(
                f"{self._subject()} was not AVAILABLE within {self._timeout_seconds:g} s; last seen: {self._last_seen}"
            ) from self._last_error
        return min(max(remaining, 1.0), 5.0)

    def check(self, statuses: Sequence[VersionStatus]) -> int | None:
        """Return the AVAILABLE version, the newest if there are several, or None to poll again.

        Raises:
            NotReadyError: if the version waited for failed to load.
        """
        for status in statuses:
            if status.state == "AVAILABLE":
                return status.version
            if self._version is not None and status.state == "END" and status.error_code != "OK":
                # TensorFlow Serving never loads a version again after it gave up on it.
                reason = f"{status.error_code}: {status.error_message}"
                raise NotReadyError(
                    f"{self._subject()} could not be loaded, and the server will not retry it: {reason}"
                )
        self._last_seen = ", ".join(map(_describe, statuses)) or "no versions"
        self._last_error = None
        return None

    def note(self, error: ServingError) -> None:
        """Keep a transient error, to report it if the wait ends without the version."""
        # The last request has a short deadline: its DeadlineError says less than what was seen before.
        if self._last_seen is None or not isinstance(error, DeadlineError):
            self._last_seen, self._last_error = str(error), error

    def _subject(self) -> str:
        return "a version" if self._version is None else f"version {self._version}"


def _describe(status: VersionStatus) -> str:
    reason = "" if status.error_code == "OK" else f" ({status.error_code}: {status.error_message})"
    return f"version {status.version} {status.state}{reason}"
