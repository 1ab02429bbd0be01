"""Every kind of file that `predict` accepts, and the errors for the others."""

import gzip
import io
import os
import pickle
import subprocess
import sys

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


@pytest.mark.parametrize("content", [b"\x89PNG\r\n", b"\xff\xd8\xff", b"BM", b"GIF89a", b"seven"])
def test_any_other_file_is_a_picture_and_stays_unchanged(tmp_path, content):
    path = tmp_path / "named.npy"  # the first bytes decide, not the name
    path.write_bytes(content)
    assert read_input(path) == content


def test_a_file_too_large_for_a_picture_is_named_and_not_read_to_its_end(tmp_path):
    path = tmp_path / "film.mov"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no space
    with pytest.raises(ValueError, match=rf"{path}: a picture may have {MAX_PICTURE_BYTES} bytes; this file has more"):
        read_input(path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "WebP"),
        (b"\x00\x00\x00\x18ftypheic", "HEIC"),
        (b"\x00\x00\x00\x18ftypavif", "AVIF"),
        (b"II*\x00\x08\x00\x00\x00", "TIFF"),
    ],
)
def test_a_picture_in_another_format_is_named_with_the_formats_that_are_accepted(tmp_path, content, kind):
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path}: is a {kind} picture, and the model reads PNG, JPEG, BMP and GIF"):
        read_input(path)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_may_be_a_pipe(order, name):
    images = np.array(IMAGES, order=order)
    array = io.BytesIO()
    np.save(array, images)
    for content, expected in (
        (array.getvalue(), images),
        (_idx(images), images),
        (gzip.compress(_idx(images)), images),
    ):
        assert np.array_equal(_read_from_a_pipe(name, content), expected)
    assert _read_from_a_pipe(name, b"\x89PNG of any length") == b"\x89PNG of any length"


def _read_from_a_pipe(name, content):
    code = "import sys, pickle; from pathlib import Path; from serving.commands.inputs import read_input;" + (
        "sys.stdout.buffer.write(pickle.dumps(read_input(Path(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name], input=content, stdout=subprocess.PIPE, check=True, timeout=60
    )
    return pickle.loads(done.stdout)


def test_a_named_pipe_is_rejected_because_opening_it_could_wait_for_ever(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"is a named pipe; .*predict - <"):
        read_input(tmp_path / "pipe")


def _huge_npy(path):
    # 228 bytes that claim 7,840 TB.
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000, 28, 28), }".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100))


def _huge_idx(path):
    path.write_bytes(b"\x00\x00\x08\x03" + np.array([2**31 - 1, 28, 28], ">i4").tobytes() + bytes(100))


def _gzip_bomb(path):
    path.write_bytes(gzip.compress(_idx(IMAGES) + bytes(2**27), compresslevel=1))


def _long_npy_header(path):
    path.write_bytes(b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b"{" * 1000)


def _zeros(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("write", [_huge_npy, _huge_idx, _gzip_bomb, _long_npy_header, _zeros])
def test_a_hostile_file_is_rejected_with_bounded_memory(tmp_path, write):
    write(tmp_path / "file")
    code = (
        "import resource, sys; from pathlib import Path; from serving.commands.inputs import read_input\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_input(Path(sys.argv[1]))\n"
        "except ValueError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "file"], stdout=subprocess.PIPE, check=True, timeout=60
    )
    assert int(done.stdout) < 40 * 1024  # KiB: the largest picture, twice


def _truncated_idx(path):
    path.write_bytes(_idx(IMAGES)[:-1])


def _longer_idx(path):
    path.write_bytes(_idx(IMAGES) + b"\0")


def _empty(path):
    path.touch()


def _truncated_npy(path):
    np.save(path.with_suffix(".npy"), IMAGES)
    path.write_bytes(path.with_suffix(".npy").read_bytes()[:-1])


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
        (_truncated_idx, "damaged: 3 images of 28 x 28 take 2352 bytes, and the file has 2351"),
        (_longer_idx, "damaged: 3 images of 28 x 28 take 2352 bytes, and the file has more"),
        (_empty, "is empty"),
        (_idx_of_labels, "not an IDX file of uint8 images"),
        (_damaged_gzip, "ended before"),
        (_changed_gzip, "decompress"),
        (_array_of_floats, "must be uint8"),
        (_pickled_array, "must be uint8"),
        (_truncated_npy, r"damaged: uint8 \[3, 28, 28\] take 2352 bytes, and the file has 2351"),
    ],
)
def test_an_unusable_array_or_idx_file_is_named_and_explained(tmp_path, write, message):
    path = tmp_path / "input"
    write(path)
    with pytest.raises(ValueError, match=rf"{path}: .*{message}"):
        read_input(path)
