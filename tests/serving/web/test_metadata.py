"""What is kept of a user's picture: no place, no time, no comment; and the model sees the same image as before."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from serving.web.metadata import remove_metadata
from tests.trainer.pictures.test_normalize import seven

SECRET = b"secret place"


@pytest.fixture(scope="module")
def normalized():
    import tensorflow as tf

    from trainer.pictures.normalize import normalize

    return lambda file: normalize(tf.constant([file])).images.numpy()[0]


def exif(orientation: int, byte_order: str = "<") -> bytes:
    """EXIF data with an orientation and, as a camera writes it, a place, a time and a preview."""
    data = Image.Exif()
    data.endian = byte_order
    data[0x0112], data[0x010E], data[0x9003] = orientation, SECRET.decode(), "2026:01:01 00:00:00"
    data.get_ifd(0x8825)[1], data.get_ifd(0x8825)[2] = "N", (50.0, 4.0, 30.0)
    return data.tobytes()


def jpeg(**options: object) -> bytes:
    return saved("JPEG", quality=90, **options)


def saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(seven()).save(file, kind, **options)
    return file.getvalue()


def with_chunk(file: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG file with one more chunk after its header."""
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return file[:33] + chunk + file[33:]


def text() -> PngInfo:
    info = PngInfo()
    info.add_text("Comment", SECRET.decode())
    info.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    return info


FILES = {
    "JPEG": jpeg(exif=exif(1), comment=SECRET, icc_profile=SECRET, xmp=SECRET),
    "progressive JPEG": jpeg(exif=exif(6), comment=SECRET, progressive=True),
    "JPEG with restarts": jpeg(exif=exif(3), restart_marker_blocks=2),
    "JPEG followed by a film": jpeg(exif=exif(1)) + b"film of a " + SECRET,
    "JPEG with bytes between its segments": jpeg()[:20] + SECRET + jpeg()[20:],
    "PNG": saved("PNG", pnginfo=text(), exif=exif(1)),
    "PNG with private data": with_chunk(saved("PNG"), b"prVt", SECRET),
    "PNG followed by data": saved("PNG") + SECRET,
    "GIF": saved("GIF", comment=SECRET),
    "GIF of two frames": saved("GIF", comment=SECRET, save_all=True, append_images=[Image.new("RGB", (240, 300))]),
}


@pytest.mark.parametrize("name", FILES)
def test_metadata_is_removed_and_the_model_sees_the_same_image(name: str, normalized) -> None:
    stripped = remove_metadata(FILES[name])
    assert SECRET in FILES[name] or b"2026:01:01" in FILES[name]
    assert SECRET not in stripped
    assert b"2026:01:01" not in stripped
    image = normalized(FILES[name])
    assert image.any()
    np.testing.assert_array_equal(normalized(stripped), image)
    opened = Image.open(io.BytesIO(stripped))
    assert opened.getexif().keys() <= {0x0112}
    assert not {"comment", "xmp", "icc_profile", "Comment"} & opened.info.keys()
    assert remove_metadata(stripped) == stripped


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_keeps_its_orientation(orientation: int, byte_order: str, normalized) -> None:
    file = jpeg(exif=exif(orientation, byte_order))
    stripped = remove_metadata(file)
    assert Image.open(io.BytesIO(stripped)).getexif().get(0x0112, 1) == orientation
    np.testing.assert_array_equal(normalized(stripped), normalized(file))


def test_a_grey_or_cmyk_photograph_keeps_its_colours() -> None:
    for mode in ("L", "CMYK"):
        file = io.BytesIO()
        Image.fromarray(seven()).convert(mode).save(file, "JPEG", exif=exif(1))
        pixels = (
            np.asarray(Image.open(io.BytesIO(one))) for one in (file.getvalue(), remove_metadata(file.getvalue()))
        )
        np.testing.assert_array_equal(*pixels)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_ends_too_early_is_refused(name: str) -> None:
    whole = remove_metadata(FILES[name])
    for length in (12, 30, len(whole) // 2, len(whole) - 2):
        with pytest.raises(ValueError, match="file"):
            remove_metadata(whole[:length])


@pytest.mark.parametrize("file", [saved("BMP"), b"", b"no picture"])
def test_other_files_remain_as_they_are(file: bytes) -> None:
    assert remove_metadata(file) == file
