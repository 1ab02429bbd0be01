"""The wait for a version: what each look at the server's status means. The clients do the looking and the sleeping."""

from __future__ import annotations

import time
from collections.abc import Sequence

from serving.client.errors import DeadlineError, NotFoundError, NotReadyError, ServingError, UnavailableError
from serving.client.results import VersionStatus

POLL_SECONDS = 0.2
"""Between two looks."""

PASSING = (UnavailableError, NotFoundError, DeadlineError)
"""What a server that is still starting, or a version that is still to come, answers."""


class Wait:
    """One wait, for `version` or (None) for whichever is AVAILABLE first."""

    def __init__(self, version: int | None, timeout_seconds: float) -> None:
        self._version, self._timeout_seconds = version, timeout_seconds
        self._end = time.monotonic() + timeout_seconds
        self._seen: str | None = None
        self._error: ServingError | None = None

    def next_timeout_seconds(self) -> float:
        """The deadline for the next look; NotReadyError when the time is over. The first look is always taken."""
        remaining = self._end - time.monotonic()
        if remaining <= 0 and self._seen is not None:
            raise NotReadyError(
                f"{self._what()} was not AVAILABLE within {self._timeout_seconds:g} s; at last: {self._seen}"
            ) from self._error
        return min(max(remaining, 1.0), 5.0)

    def look_at(self, statuses: Sequence[VersionStatus]) -> int | None:
        """The version that is AVAILABLE, the newest if several are; None to look again."""
        for status in statuses:
            if status.state == "AVAILABLE":
                return status.version
            if self._version is not None and status.state == "END" and status.error_code != "OK":
                # TensorFlow Serving never tries a number again that it has given up.
                reason = f"{status.error_code}: {status.error_message}"
                raise NotReadyError(f"{self._what()} could not be loaded, and will not be tried again: {reason}")
        self._seen = ", ".join(f"version {status.version} {status.state}" for status in statuses) or "no versions"
        self._error = None
        return None

    def note(self, error: ServingError) -> int | None:
        """Keeps the reason for having to look again, as `look_at` does."""
        if self._seen is None or not isinstance(error, DeadlineError):  # which the last, short look would end with
            self._seen, self._error = str(error), error
        return None

    def _what(self) -> str:
        return "a version" if self._version is None else f"version {self._version}"
