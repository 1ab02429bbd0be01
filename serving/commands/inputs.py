"""Reads the files of `predict`. The first bytes decide the kind: .npy and MNIST's IDX (gzipped or not) hold images in the
network's own form; any other file is a picture, which is sent to the server as it is.

Memory stays bounded, whatever a file claims or a pipe delivers: sizes are checked before anything is read or allocated.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import stat
import sys
import zlib
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from serving.client.requests import check_images
from serving.contract import MAX_PICTURE_BYTES

STDIN = Path("-")
"""Stands for standard input."""
MAX_ARRAY_BYTES = 256 * 1024 * 1024
"""Largest array: 340,000 images, almost five times MNIST."""

_DESCRIPTORS = ("/dev/", "/proc/")
"""Paths such as /dev/stdin stand for a descriptor that is open already."""
_GZIP, _NPY, _IDX_IMAGES = b"\x1f\x8b", b"\x93NUMPY", b"\x00\x00\x08\x03"
_UNSUPPORTED = {
    "WebP": rb"RIFF....WEBP",
    "HEIC": rb"....ftyp(hei|mif|msf)",
    "AVIF": rb"....ftypavi",
    "TIFF": rb"II\*\0|MM\0\*",
}
"""Patterns of the first bytes of pictures in formats that the model cannot decode."""


def read_input(path: Path) -> np.ndarray | bytes:
    """Read one file.

    Args:
        path: a .npy of uint8 [N, 28, 28] or [28, 28], an IDX file of such images, or a picture; `STDIN` and pipes, too.

    Returns:
        uint8 [N, 28, 28], 0 = paper, 255 = ink; or the bytes of a picture, which the server decodes.

    Raises:
        OSError: if the file cannot be read.
        ValueError: for an array or IDX file of anything else, or a picture that is too large or in another format; the
            message names the file.
    """
    name = "standard input" if path == STDIN else str(path)
    try:
        with _open(path) as file:
            return _read(file)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{name}: {error}") from error


def can_be_read_again(path: Path) -> bool:
    """Return whether the file gives its content each time it is opened, which standard input and pipes do not."""
    return path != STDIN and path.is_file() and not str(path).startswith(_DESCRIPTORS)


def _open(path: Path) -> BinaryIO:
    if path == STDIN:
        if sys.stdin is None:
            raise ValueError("is closed; send a file to it: predict - < FILE")
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    if stat.S_ISFIFO(path.stat().st_mode) and not str(path).startswith(_DESCRIPTORS):
        # Opening it would wait, perhaps forever, for a program that writes to it.
        raise ValueError(f"is a named pipe; send its content to standard input: predict - < {path}")
    return path.open("rb")


def _read(file: BinaryIO) -> np.ndarray | bytes:
    start = file.read(12)
    rest = _Rest(start, file)
    if start.startswith(_NPY):
        return _read_npy(rest)
    if start.startswith(_IDX_IMAGES):
        return _read_idx(rest)
    if start.startswith(_GZIP):
        with gzip.open(rest, "rb") as content:  # type: ignore[call-overload]  # it needs read() only
            return _read_idx(content)
    for kind, pattern in _UNSUPPORTED.items():
        if re.match(pattern, start, re.DOTALL):
            raise ValueError(f"is a {kind} picture, and the model reads PNG, JPEG, BMP and GIF; convert it first")
    picture = rest.read(MAX_PICTURE_BYTES + 1)
    if len(picture) > MAX_PICTURE_BYTES:
        raise ValueError(f"a picture may have {MAX_PICTURE_BYTES} bytes; this file has more")
    if not picture:
        raise ValueError("is empty")
    return picture


class _Rest:
    """A file whose first bytes have been read: gives them again, so that pipes need no seek."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self._start, self._file = start, file

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise ValueError("reads must be bounded")
        start, self._start = self._start[:size], self._start[size:]
        return start + self._file.read(size - len(start))


def _read_npy(file: _Rest) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):  # later versions allow headers of up to 4 GiB, which images never need
        raise ValueError(f"has .npy version {version[0]}.{version[1]}; write images with numpy.save")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    check_images(np.broadcast_to(np.empty((), dtype), shape))  # takes no memory, whatever the shape
    content = _read_exactly(file, math.prod(shape), f"{dtype} {list(shape)}")
    return check_images(np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran_order else "C"))


def _read_idx(file: _Rest | IO[bytes]) -> np.ndarray:
    header = file.read(16)
    if not header.startswith(_IDX_IMAGES):
        raise ValueError("not an IDX file of uint8 images, which begins with 00 00 08 03")
    count, height, width = (int.from_bytes(header[at : at + 4], "big") for at in (4, 8, 12))
    content = _read_exactly(file, count * height * width, f"{count} images of {height} x {width}")
    return check_images(np.frombuffer(content, np.uint8).reshape(count, height, width))


def _read_exactly(file: _Rest | IO[bytes], size: int, claim: str) -> bytes:
    if size > MAX_ARRAY_BYTES:
        raise ValueError(f"claims {claim}, {size} bytes; at most {MAX_ARRAY_BYTES} are accepted")
    content = file.read(size + 1)
    if len(content) != size:
        found = "more" if len(content) > size else len(content)
        raise ValueError(f"damaged: {claim} take {size} bytes, and the file has {found}")
    return content
