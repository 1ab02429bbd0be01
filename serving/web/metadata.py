"""Removes metadata from a picture file without decoding it: place, time, camera, previews, comments.

Photographs of telephones carry where and when they were taken. Only what the model's decoder reads remains: the pixels as
they were compressed, and the orientation of a JPEG file (trainer/pictures/decode.py). So the model sees the same image
before and after. BMP files have no place for such metadata, and remain as they are.
"""

import re
from collections.abc import Iterator

JPEG, PNG, GIF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8"

_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""The start of a segment. Zero, 0x01 and 0xd0 to 0xd8 stand for no segment; 0xff fills."""
_END, _SCAN, _JFIF, _ADOBE = 0xD9, 0xDA, 0xE0, 0xEE
_KEPT_JPEG_SEGMENTS = {*range(0xC0, 0xD0), _SCAN, 0xDB, 0xDC, 0xDD}
"""Frame headers, tables and scans."""

_ORIENTATION_BYTES = 4096
_ORIENTATION = ((b"\x01\x12\x00\x03\x00\x00\x00\x01", 9), (b"\x12\x01\x03\x00\x01\x00\x00\x00", 8))
"""EXIF's tag in either byte order, and where its value is; searched in the first bytes, as the model's decoder does."""

_KEPT_PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}

_GIF_EXTENSION, _GIF_FRAME, _GIF_CONTROL = 0x21, 0x2C, 0xF9


def remove_metadata(picture: bytes) -> bytes:
    """Remove the metadata of a JPEG, PNG or GIF file; any other file remains as it is.

    Returns:
        The file's new content.

    Raises:
        ValueError: the file is damaged, so it cannot be told what is metadata.
    """
    for start, pieces in ((JPEG, _jpeg), (PNG, _png), (GIF, _gif)):
        if picture.startswith(start):
            try:
                return b"".join(pieces(picture))
            except IndexError as error:
                raise ValueError("the file ends too early") from error
    return picture


def _jpeg(picture: bytes) -> Iterator[bytes]:
    yield picture[:2]
    if (orientation := _orientation(picture[:_ORIENTATION_BYTES])) != 1:
        tag = bytes.fromhex("0001 0112 0003 00000001") + bytes([0, orientation, 0, 0]) + bytes(4)
        yield _segment(0xE1, b"Exif\0\0" + b"MM\0*\0\0\0\x08" + tag)
    at = 2
    while True:
        start = _next_marker(picture, at)
        kind = picture[start + 1]
        if kind == _END:
            break
        at = start + 2 + int.from_bytes(_exactly(picture, start + 2, 2))
        content = _exactly(picture, start + 4, at - start - 4)
        if kind == _JFIF and content.startswith(b"JFIF\0"):
            yield _segment(_JFIF, content[:12] + b"\0\0")  # without its preview
        elif kind == _ADOBE and content.startswith(b"Adobe"):
            yield _segment(_ADOBE, content[:12])  # says which colours the values are
        elif kind in _KEPT_JPEG_SEGMENTS:
            yield picture[start:at]
        if kind == _SCAN:
            end = _next_marker(picture, at)
            yield picture[at:end]
            at = end
    yield bytes([0xFF, _END])  # without the second picture or the film that some cameras append


def _next_marker(picture: bytes, at: int) -> int:
    if not (found := _JPEG_MARKER.search(picture, at)):
        raise IndexError
    return found.start()


def _segment(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind]) + (len(content) + 2).to_bytes(2) + content


def _orientation(head: bytes) -> int:
    for tag, offset in _ORIENTATION:
        start = head.find(tag)
        value = int.from_bytes(head[start + offset : start + offset + 1])
        if start >= 0 and 1 <= value <= 8:
            return value
    return 1


def _png(picture: bytes) -> Iterator[bytes]:
    yield PNG
    at, kind = len(PNG), b""
    while kind != b"IEND":
        chunk = _exactly(picture, at, 12 + int.from_bytes(_exactly(picture, at, 4)))
        kind = chunk[4:8]
        if kind in _KEPT_PNG_CHUNKS:
            yield chunk
        at += len(chunk)


def _gif(picture: bytes) -> Iterator[bytes]:
    # The decoder reads the first frame only.
    at = 13 + _gif_table(picture[10])
    yield picture[:at]
    is_frame = False
    while not is_frame:
        is_frame = picture[at] == _GIF_FRAME
        if not is_frame and picture[at] != _GIF_EXTENSION:
            raise ValueError("the file has no frame")
        end = at + (11 + _gif_table(picture[at + 9]) if is_frame else 2)
        while picture[end]:
            end += 1 + picture[end]
        end += 1
        if is_frame or picture[at + 1] == _GIF_CONTROL:
            yield picture[at:end]
        at = end
    yield b";"


def _gif_table(flags: int) -> int:
    return 3 * (2 << flags % 8) if flags >= 128 else 0


def _exactly(picture: bytes, start: int, count: int) -> bytes:
    if count < 0 or start + count > len(picture):
        raise IndexError
    return picture[start : start + count]
