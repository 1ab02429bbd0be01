"""Atomic file writes: write under a temporary name beside the target, flush to the disk, rename once."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTIAL_PREFIX = ".partial-"
"""Prefix of temporary names. A killed process leaves such files behind."""


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file completely or not at all; when this returns, it is on the disk.

    Args:
        path: the target.
        write: writes the content to the path that it gets.

    Raises:
        OSError: the file could not be written; the earlier file at `path` is unchanged.
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
    """Flush the names in a folder to the disk: without it a power failure can undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
