"""Four files in MNIST's own format (IDX), gzipped or not, as a training and a test split.

The format: two zero bytes, 0x08 for unsigned bytes, the number of dimensions, each dimension as a big-endian 32-bit
integer, then the values in row-major order (Yann LeCun's MNIST page, "File formats").
"""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

from trainer.data.split import MNIST_FINGERPRINTS, DataError, Split

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""The names under which a folder holds images and labels of each split, each with or without `.gz`."""

MNIST_IMAGE_FILES = {
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db": "train",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7": "test",
}
"""SHA-256 of MNIST's unpacked image files, and the split that each belongs to. With it, images under the wrong name and
images with wrong labels are rejected."""


def read_idx_folder(folder: Path) -> tuple[Split, Split]:
    """Read the training and the test split from a folder with the four `FILES`.

    Raises:
        DataError: a file is missing, truncated, swapped, mislabelled or of the wrong size; the message names it.
    """
    return _read_split(folder, "train"), _read_split(folder, "test")


def read_idx(path: Path) -> np.ndarray:
    """Read one IDX file of unsigned bytes.

    Returns:
        uint8, with the dimensions that the file's header gives.

    Raises:
        DataError: the file is not IDX, or its size differs from its header.
    """
    content = _unpack(path)
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{path}: not an IDX file of unsigned bytes (it starts with {content[:4].hex() or 'nothing'})")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(f"{path}: truncated inside its header ({len(content)} bytes)")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", count=content[3], offset=4))
    expected = int(np.prod(shape, dtype=object)) if shape else 0
    if len(content) - start != expected:
        kind = "truncated" if len(content) - start < expected else "too long"
        raise DataError(f"{path}: {kind}: {len(content) - start} values for the dimensions {list(shape)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_split(folder: Path, split: str) -> Split:
    images_path, labels_path = (_find(folder, name) for name in FILES[split])
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise DataError(f"{images_path}: dimensions {list(images.shape)}; expected images [N, 28, 28]")
    if labels.ndim != 1:
        raise DataError(f"{labels_path}: dimensions {list(labels.shape)}; expected labels [N]")
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: {len(labels)} labels for the {len(images)} images of {images_path.name}")
    if len(labels) and labels.max() > 9:
        raise DataError(f"{labels_path}: label {labels.max()} at position {labels.argmax()}; expected 0 to 9")
    result = Split(images, labels)
    mnist_split = MNIST_IMAGE_FILES.get(_image_file_digest(images))
    if mnist_split and mnist_split != split:
        raise DataError(f"{images_path}: these are MNIST's {mnist_split} images under the name of the {split} split")
    if mnist_split and result.fingerprint != MNIST_FINGERPRINTS[split]:
        raise DataError(f"{labels_path}: not the labels of MNIST's {split} images; get the original file again")
    return result


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder / name}: missing, and {name}.gz too; expected four IDX files named as MNIST's")


def _unpack(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: truncated or damaged: {error}") from error


def _image_file_digest(images: np.ndarray) -> str:
    header = b"\0\0\x08\x03" + np.array(images.shape, ">u4").tobytes()
    return hashlib.sha256(header + images.tobytes()).hexdigest()
