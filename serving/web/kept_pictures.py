"""Pictures that users have corrected or confirmed, kept in a folder to train with.

    FOLDER/7/<hash>.png           the picture as it was sent, without metadata, under the digit that the user named
    FOLDER/.answers/<hash>.json   that digit, and what which version predicted

`python -m trainer learn FOLDER` reads this folder; it does not read hidden files. The hash is that of the image that the
network saw. So a picture that is sent again is kept once, under the digit that was named last.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

from serving.client.results import PicturePrediction
from serving.contract import CLASSES
from serving.web.metadata import remove_metadata

MAX_PICTURES = 10_000
MAX_BYTES = 2**30
"""Limits of the folder; further pictures are rejected until some are moved away."""

ANSWERS = ".answers"

SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"GIF8": ".gif", b"BM": ".bmp"}
"""First bytes of a file -> its suffix, which only people need: the readers look at the bytes."""


class FullError(Exception):
    """The folder has reached one of its limits."""


class KeptPictures:
    """The folder of the kept pictures; several threads may use it."""

    def __init__(self, folder: Path, *, max_pictures: int = MAX_PICTURES, max_bytes: int = MAX_BYTES) -> None:
        """Make the folders.

        Raises:
            OSError: they cannot be made, or not be written to.
        """
        self._folder, self._max_pictures, self._max_bytes = folder, max_pictures, max_bytes
        self._lock = threading.Lock()
        for name in (ANSWERS, *map(str, range(CLASSES))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            if not os.access(folder / name, os.W_OK | os.X_OK):
                raise PermissionError(f"{folder / name} is not writable")

    def count(self) -> int:
        """Return the number of kept pictures."""
        return self._usage()[0]

    def keep(self, picture: bytes, digit: int, prediction: PicturePrediction) -> int:
        """Keep a picture, on the disk when this returns.

        Args:
            picture: the file's bytes, at most `serving.contract.MAX_PICTURE_BYTES`.
            digit: the digit that the user named, 0 to 9.
            prediction: what the model server answered for the picture.

        Returns:
            The number of kept pictures.

        Raises:
            ValueError: the file is damaged, so its metadata cannot be removed; nothing was kept.
            FullError: a limit is reached; nothing was kept.
            OSError: it cannot be written; nothing was kept.
        """
        picture = remove_metadata(picture)
        name = hashlib.sha256(prediction.normalized.tobytes()).hexdigest()[:32]
        target = self._folder / str(digit)
        answer = {
            "digit": digit,
            "predicted": prediction.digit,
            "confidence": prediction.confidence,
            "version": prediction.version,
            "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }
        with self._lock:
            kept = next(self._folder.glob(f"[0-9]/{name}*"), None)
            if kept is None:
                self._refuse_if_full(len(picture))
            # The picture comes last, so that every picture on the disk has its answer.
            _write(self._folder / ANSWERS / f"{name}.json", json.dumps(answer).encode())
            if kept is None:
                _write(target / f"{name}{_suffix(picture)}", picture)
            elif kept.parent != target:
                kept.replace(target / kept.name)
                _sync(target)
            return self.count()

    def _refuse_if_full(self, added_bytes: int) -> None:
        pictures, size = self._usage()
        if pictures >= self._max_pictures or size + added_bytes > self._max_bytes:
            raise FullError(
                f"The folder for corrections is full: {pictures:,} pictures, {size / 2**20:.1f} MiB. Nothing was kept."
            )

    def _usage(self) -> tuple[int, int]:
        """Return the number of pictures and their bytes; counted anew, so that files may be added and removed by hand."""
        sizes = [path.stat().st_size for path in self._folder.glob("[0-9]/[!.]*")]
        return len(sizes), sum(sizes)


def _suffix(picture: bytes) -> str:
    return next((suffix for start, suffix in SUFFIXES.items() if picture.startswith(start)), "")


def _write(path: Path, content: bytes) -> None:
    """Write a file completely or not at all: under a hidden name, which readers ignore, then one rename."""
    partial = path.with_name(f".partial-{path.name}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
