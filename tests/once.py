"""A folder that takes long to make, made once for all test processes."""

from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, worker_id: str, name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder `name` of all test processes. The first process that needs it fills it with `make`."""
    from trainer.runs.lock import locked

    own = factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    folder, made = shared / name, shared / f"{name}.made"
    with locked(shared / f"{name}.lock", timeout_seconds=900, busy=f"another test process still makes {name}"):
        if not made.exists():
            make(folder)
            made.touch()
    return folder
