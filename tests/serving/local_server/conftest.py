"""Runs of a model that last as long as a test needs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serving.local_server.model.servable import Servable


class HeldRuns:
    """`begun` is set when a run has begun. It ends after `release` is set."""

    def __init__(self) -> None:
        self.begun, self.release = threading.Event(), threading.Event()


@pytest.fixture
def held_runs(monkeypatch) -> HeldRuns:
    """Holds the runs of version 1, in servers of this process."""
    held, counted = HeldRuns(), Servable._counted

    @contextmanager
    def hold(servable: Servable) -> Iterator[None]:
        with counted(servable):
            if servable.path.name == "1":
                held.begun.set()
                assert held.release.wait(60)
            yield

    monkeypatch.setattr(Servable, "_counted", hold)
    return held
