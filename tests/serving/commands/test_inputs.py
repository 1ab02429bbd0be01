"""Every kind of file that `predict` accepts, and the errors for the others."""

import gzip

import numpy as np
import pytest

from serving.commands.inputs import read_input
from serving.contract import MAX_PICTURE_BYTES

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)


def _idx(images: np.ndarray) -> bytes:
    return b"\x00\x00\x08\x03" + np.array(images.shape, ">i4").tobytes() + images.tobytes()


@pytest.mark.parametrize(("name", "pack"), [("images-idx3-ubyte", bytes), ("images.gz", gzip.compress)])
def test_idx_files_give_their_images(tmp_path, name, pack):
    path = tmp_path / name
    path.write_bytes(pack(_idx(IMAGES)))
    assert np.array_equal(read_input(path), IMAGES)


@pytest.mark.parametrize("images", [IMAGES, IMAGES[0]], ids=["[N, 28, 28]", "[28, 28]"])
def test_arrays_give_their_images(tmp_path, images):
    np.save(tmp_path / "images.npy", images)
    assert np.array_equal(read_input(tmp_path / "images.npy"), images.reshape(-1, 28, 28))


@pytest.mark.parametrize("content", [b"\x89PNG\r\n", b"\xff\xd8\xff", b"BM", b"GIF89a", b"seven", b""])
def test_any_other_file_is_a_picture_and_stays_unchanged(tmp_path, content):
    path = tmp_path / "named.npy"  # the first bytes decide, not the name
    path.write_bytes(content)
    assert read_input(path) == content


def test_a_file_too_large_for_a_picture_is_named_and_never_read(tmp_path):
    path = tmp_path / "film.mov"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no space
    with pytest.raises(ValueError, match=rf"{path}: a picture may have {MAX_PICTURE_BYTES} bytes"):
        read_input(path)


def _truncated_idx(path):
    path.write_bytes(_idx(IMAGES)[:-1])


def _idx_of_labels(path):
    path.write_bytes(gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x01\x07"))


def _changed_gzip(path):
    content = bytearray(gzip.compress(_idx(IMAGES)))
    content[10] = 0x07  # a block type that does not exist
    path.write_bytes(content)


def _damaged_gzip(path):
    path.write_bytes(gzip.compress(_idx(IMAGES))[:100])


def _array_of_floats(path):
    with path.open("wb") as file:
        np.save(file, IMAGES / 255)


def _pickled_array(path):
    with path.open("wb") as file:
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_truncated_idx, "damaged: 3 images of 28 x 28 take 2368 bytes, not 2367"),
        (_idx_of_labels, "not an IDX file of uint8 images"),
        (_damaged_gzip, "ended before"),
        (_changed_gzip, "decompress"),
        (_array_of_floats, "must be uint8"),
        (_pickled_array, "allow_pickle"),
    ],
)
def test_an_unusable_array_or_idx_file_is_named_and_explained(tmp_path, write, message):
    path = tmp_path / "input"
    write(path)
    with pytest.raises(ValueError, match=rf"{path}: .*{message}"):
        read_input(path)
