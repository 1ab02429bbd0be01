"""Files to images: every kind that `predict` takes, and what it says of the others."""

import gzip

import numpy as np
import pytest
from PIL import Image, ImageDraw

from serving.inputs import read_images
from serving.prepare import BOX, prepare_picture

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)


def _idx(images: np.ndarray) -> bytes:
    return b"\x00\x00\x08\x03" + np.array(images.shape, ">i4").tobytes() + images.tobytes()


def _drawn_seven(size=(60, 80), paper=255, ink=0, mode="L"):
    picture = Image.new(mode, size, paper)
    width, height = size
    corners = [(width * 0.2, height * 0.2), (width * 0.8, height * 0.2), (width * 0.4, height * 0.85)]
    ImageDraw.Draw(picture).line(corners, fill=ink, width=max(2, width // 8))
    return picture


@pytest.mark.parametrize(("name", "pack"), [("images-idx3-ubyte", bytes), ("images.gz", gzip.compress)])
def test_idx_files_give_their_images(tmp_path, name, pack):
    path = tmp_path / name
    path.write_bytes(pack(_idx(IMAGES)))
    assert np.array_equal(read_images(path), IMAGES)


@pytest.mark.parametrize("images", [IMAGES, IMAGES[0]], ids=["[N, 28, 28]", "[28, 28]"])
def test_arrays_give_their_images(tmp_path, images):
    np.save(tmp_path / "images.npy", images)
    assert np.array_equal(read_images(tmp_path / "images.npy"), images.reshape(-1, 28, 28))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp"])
def test_pictures_give_one_image_each(tmp_path, suffix):
    path = tmp_path / f"seven.{suffix}"
    _drawn_seven(mode="RGB", paper="white", ink="navy").save(path)
    images = read_images(path)
    assert (images.dtype, images.shape) == (np.uint8, (1, 28, 28))
    assert images.max() > 200


def _truncated_idx(path):
    path.write_bytes(_idx(IMAGES)[:-1])


def _idx_of_labels(path):
    path.write_bytes(gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x01\x07"))


def _changed_gzip(path):
    content = bytearray(gzip.compress(_idx(IMAGES)))
    content[10] = 0x07  # a block of a type that there is not
    path.write_bytes(content)


def _damaged_gzip(path):
    path.write_bytes(gzip.compress(_idx(IMAGES))[:100])


def _array_of_floats(path):
    with path.open("wb") as file:
        np.save(file, IMAGES / 255)


def _pickled_array(path):
    with path.open("wb") as file:
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)


def _text(path):
    path.write_text("seven")


def _empty(path):
    path.write_bytes(b"")


def _blank_picture(path):
    Image.new("L", (50, 50), 255).save(path, format="png")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (_truncated_idx, "damaged: 3 images of 28 x 28 take 2368 bytes, not 2367"),
        (_idx_of_labels, "not an IDX file of uint8 images"),
        (_damaged_gzip, "ended before"),
        (_changed_gzip, "decompress"),
        (_array_of_floats, "must be uint8"),
        (_pickled_array, "allow_pickle"),
        (_text, "not a picture that Pillow can read"),
        (_empty, "not a picture that Pillow can read"),
        (_blank_picture, "no digit found"),
    ],
)
def test_a_file_of_anything_else_is_named_and_explained(tmp_path, write, says):
    path = tmp_path / "input"
    write(path)
    with pytest.raises(ValueError, match=rf"{path}: .*{says}"):
        read_images(path)


def test_dark_on_light_and_light_on_dark_are_prepared_alike():
    dark, light = prepare_picture(_drawn_seven()), prepare_picture(_drawn_seven(paper=0, ink=255))
    assert np.array_equal(dark, light)


def test_size_and_place_do_not_matter():
    small = prepare_picture(_drawn_seven((60, 80)))
    shifted = Image.new("L", (200, 200), 255)
    shifted.paste(_drawn_seven((60, 80)), (130, 10))
    assert np.array_equal(prepare_picture(shifted), small)
    large = prepare_picture(_drawn_seven((480, 640))).astype(int)
    assert np.abs(large - small).mean() < 8


@pytest.mark.parametrize("size", [(60, 80), (300, 90), (40, 400)])
def test_the_digit_fits_the_box_and_is_centred_by_mass(size):
    image = prepare_picture(_drawn_seven(size)).astype(float)
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    assert max(height, width) == BOX
    for axis, side in ((1, height), (0, width)):
        centre = (image.sum(axis) * (np.arange(28) + 0.5)).sum() / image.sum()
        assert abs(centre - 14) <= (0.5 if side < BOX else 4)  # as far as the box can move


def test_transparent_paper_counts_as_white():
    clear = Image.new("RGBA", (60, 80), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), mask=_drawn_seven(paper=0, ink=255))
    assert np.array_equal(prepare_picture(clear), prepare_picture(_drawn_seven()))
