"""Reads the files of `predict`. The first bytes decide the kind: .npy and MNIST's IDX (gzipped or not) hold images in the
network's own form; any other file is a picture, which is sent to the server as it is.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from serving.client.requests import check_images
from serving.contract import MAX_PICTURE_BYTES

_GZIP, _NPY, _IDX_IMAGES = b"\x1f\x8b", b"\x93NUMPY", b"\x00\x00\x08\x03"


def read_input(path: Path) -> np.ndarray | bytes:
    """Reads one file.

    Args:
        path: a .npy of uint8 [N, 28, 28] or [28, 28], an IDX file of such images, or a picture.

    Returns:
        uint8 [N, 28, 28], 0 = paper, 255 = ink; or the bytes of a picture, which the server decodes.

    Raises:
        OSError: if the file cannot be read.
        ValueError: for an array or IDX file of anything else, or a picture that is too large; the message names the file.
    """
    with path.open("rb") as file:
        start = file.read(len(_NPY))
    try:
        if start.startswith(_NPY):
            return check_images(np.load(path, allow_pickle=False))
        if start.startswith(_GZIP):
            return _decode_idx(gzip.decompress(path.read_bytes()))
        if start.startswith(_IDX_IMAGES):
            return _decode_idx(path.read_bytes())
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: {error}") from error
    size = path.stat().st_size  # checked before reading: the file may be of any size
    if size > MAX_PICTURE_BYTES:
        raise ValueError(f"{path}: a picture may have {MAX_PICTURE_BYTES} bytes; this file has {size}")
    return path.read_bytes()


def _decode_idx(content: bytes) -> np.ndarray:
    if not content.startswith(_IDX_IMAGES):
        raise ValueError("not an IDX file of uint8 images, which begins with 00 00 08 03")
    count, height, width = (int.from_bytes(content[at : at + 4], "big") for at in (4, 8, 12))
    expected_bytes = 16 + count * height * width
    if len(content) != expected_bytes:
        raise ValueError(
            f"damaged: {count} images of {height} x {width} take {expected_bytes} bytes, not {len(content)}"
        )
    return check_images(np.frombuffer(content, np.uint8, offset=16).reshape(count, height, width))
