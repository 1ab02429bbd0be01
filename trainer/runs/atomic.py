"""Files written whole or not at all: another name beside the target, flushed to the disk, then one rename."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTIAL_PREFIX = ".partial-"
"""What the names of unfinished files begin with; a process that was killed leaves them."""


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Have `write` write a file whole or not at all; when this returns it has reached the disk.

    Raises:
        OSError: it could not be written; what was at `path` before is still there.
    """
    partial = path.with_name(PARTIAL_PREFIX + path.name)
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename may otherwise be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
