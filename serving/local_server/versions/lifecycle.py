"""The states of a version, and the next step: TensorFlow Serving's rules as functions of the states."""

import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from serving.local_server.errors import StatusError
from serving.local_server.model.servable import Servable


class State(IntEnum):
    """As `ModelVersionStatus.State`."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass
class Version:
    """One version, from its discovery to its end. Guarded by the manager's lock."""

    number: int
    path: Path
    state: State = State.START
    error: StatusError | None = None
    is_wanted: bool = True
    servable: Servable | None = None
    in_flight: int = 0
    attempts: int = 0
    retry_at: float = 0.0
    is_given_up: bool = False
    """All load attempts failed; there is no further attempt while its directory stays."""


def next_to_unload(versions: list[Version]) -> Version | None:
    """Return the lowest unwanted version that may be unloaded now, or None.

    The last version that serves is kept until a wanted one is AVAILABLE, unless no version is wanted.
    """
    serving = [version for version in versions if version.state == State.AVAILABLE]
    unwanted = [version for version in serving if not version.is_wanted]
    anything_wanted = any(version.is_wanted for version in versions)
    if anything_wanted and len(unwanted) == len(serving) == 1:
        return None
    return min(unwanted, key=lambda version: version.number, default=None)


def next_to_load(versions: list[Version]) -> Version | None:
    """Return the highest wanted version whose first or next load attempt is due, or None."""
    now = time.monotonic()
    waiting = [
        version
        for version in versions
        if version.is_wanted and version.state in (State.START, State.LOADING) and version.retry_at <= now
    ]
    return max(waiting, key=lambda version: version.number, default=None)
