"""Files to images. What a file is, its first bytes say: an array (.npy), MNIST's IDX (gzipped or not), or a picture."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from serving.requests import check_images

_GZIP, _NPY, _IDX_IMAGES = b"\x1f\x8b", b"\x93NUMPY", b"\x00\x00\x08\x03"


def read_images(path: Path) -> np.ndarray:
    """The images in one file.

    Args:
        path: a .npy of uint8 [N, 28, 28] or [28, 28], an IDX file of such images, or a picture that Pillow reads.
    Returns:
        uint8 [N, 28, 28], 0 = paper, 255 = ink; N is 1 for a picture.
    Raises:
        OSError: for a file that cannot be read.
        ValueError: for a file that holds something else; it names the file.
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
        return _read_picture(path)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: {error}") from error


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


def _read_picture(path: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError  # arrays need no Pillow, and start faster without it

    from serving.prepare import prepare_picture

    try:
        with Image.open(path) as picture:
            return prepare_picture(picture)[np.newaxis]
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
        raise ValueError(f"not a picture that Pillow can read, nor .npy, nor IDX ({error})") from error
