"""The bytes of a picture file -> its pixels, as TensorFlow ops that run inside the served graph.

The first bytes of a file tell its format and size, so a file that would unpack to gigabytes is rejected before a decoder
sees it. TensorFlow has no op for the following, and they are not supported: orientation and colour profiles in PNG files,
transparency in GIF and BMP files, BMP files that are compressed or have a colour palette, WebP, HEIC and AVIF.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import tensorflow as tf

from serving.contract import MAX_PICTURE_BYTES

MAX_PIXELS = 2**25
"""Pixels of the largest picture that is accepted: 33.5 million. A telephone's photograph has 12 to 24 million."""

UNDECODABLE = "cannot be decoded; expected a complete PNG, JPEG, BMP or GIF file"

HEAD_BYTES = 4096
"""Bytes at the start of a file in which its format, size and orientation are searched."""

MIN_REDUCED_PIXELS = 2**20
"""JPEG files are decoded at a half or a quarter of their size, if so many pixels are left."""

_PNG, _JPEG, _BMP, _GIF, _UNKNOWN = range(5)


class _Header(NamedTuple):
    """What the first bytes of a file declare."""

    format: tf.Tensor
    """int32: one of `_PNG` to `_UNKNOWN`."""
    pixels: tf.Tensor
    """int64: width times height; 0 if unknown, and for JPEG files, whose size may be declared anywhere."""
    orientation: tf.Tensor
    """int64: EXIF's; 1 is upright."""
    depth: tf.Tensor
    """int64: bits of a value in a PNG file."""
    is_opaque: tf.Tensor
    """bool: a PNG file without transparency. False also where it is unknown."""


def decode(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode one file; transparent pixels are blended over white.

    Args:
        encoded: string, the bytes of the file.

    Returns:
        The pixels, uint8 [H, W, 3], and the reason why the file cannot be used: a string, empty if it can. A file that
        cannot be used gives one white pixel.
    """
    header, length = _read_header(encoded), tf.strings.length(encoded)
    problem = tf.case(
        [
            (length > MAX_PICTURE_BYTES, lambda: _too_large(length, "bytes", MAX_PICTURE_BYTES)),
            (header.format == _UNKNOWN, lambda: tf.constant(UNDECODABLE)),
            (header.pixels > MAX_PIXELS, lambda: _too_large(header.pixels, "pixels", MAX_PIXELS)),
        ],
        default=lambda: tf.constant(""),
    )
    pixels, size = tf.cond(problem == "", lambda: _decode(encoded, header), _not_decoded)
    problem = tf.where(size > MAX_PIXELS, _too_large(size, "pixels", MAX_PIXELS), problem)
    failed = tf.size(pixels) == 0
    white = tf.fill([1, 1, 3], tf.constant(255, tf.uint8))
    pixels = tf.cond(failed, lambda: white, lambda: _upright(_rgb(pixels, header), header.orientation))
    return pixels, tf.where(failed & (problem == ""), UNDECODABLE, problem)


def _too_large(value: tf.Tensor, unit: str, limit: int) -> tf.Tensor:
    return tf.strings.join(["has ", tf.strings.as_string(value), f" {unit}; expected at most {limit}"])


def _read_header(encoded: tf.Tensor) -> _Header:
    first_bytes = tf.strings.substr(encoded, 0, HEAD_BYTES)
    head = tf.strings.substr(tf.strings.join([first_bytes, b"\0" * HEAD_BYTES]), 0, HEAD_BYTES)
    head = tf.ensure_shape(tf.io.decode_raw(head, tf.uint8), [HEAD_BYTES])

    def begins(magic: bytes) -> tf.Tensor:
        return tf.reduce_all(head[: len(magic)] == list(magic))

    formats = tf.stack([begins(b"\x89PNG\r\n\x1a\n"), begins(b"\xff\xd8\xff"), begins(b"BM"), begins(b"GIF8")])
    file_format = tf.where(tf.reduce_any(formats), tf.argmax(formats, output_type=tf.int32), _UNKNOWN)
    pixels = tf.switch_case(
        file_format,
        [
            lambda: _big(head[16:20]) * _big(head[20:24]),
            lambda: tf.constant(0, tf.int64),
            lambda: _little(head[18:22]) * tf.minimum(_little(head[22:26]), 2**32 - _little(head[22:26])),
            lambda: _little(head[6:8]) * _little(head[8:10]),
            lambda: tf.constant(0, tf.int64),
        ],
    )
    orientation = tf.cond(file_format == _JPEG, lambda: _orientation(first_bytes), lambda: tf.constant(1, tf.int64))
    is_opaque = tf.cond(file_format == _PNG, lambda: _is_opaque(first_bytes, head[25]), lambda: False)
    return _Header(file_format, pixels, orientation, tf.cast(head[24], tf.int64), is_opaque)


def _is_opaque(first_bytes: tf.Tensor, colour_type: tf.Tensor) -> tf.Tensor:
    """Return whether a PNG file is known to have no transparency. False if its pixels begin after `HEAD_BYTES`.

    Colour types 0 (grey) and 2 (RGB) are transparent only if a chunk tRNS, which comes before the pixels, says so.
    """
    has_pixels = tf.size(_split(first_bytes, b"IDAT")) > 1
    has_no_trns = tf.size(_split(first_bytes, b"tRNS")) == 1
    return has_pixels & has_no_trns & ((colour_type == 0) | (colour_type == 2))


def _split(text: tf.Tensor, separator: bytes) -> tf.Tensor:
    """Split a string: string [n]. `tf.strings.split` builds ragged tensors, which takes 20 operations."""
    return tf.raw_ops.StringSplitV2(input=text[tf.newaxis], sep=separator).values


def _little(values: tf.Tensor) -> tf.Tensor:
    return _big(values[::-1])


def _big(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(values, tf.int64) * [256**k for k in range(values.shape[0] - 1, -1, -1)])


def _orientation(first_bytes: tf.Tensor) -> tf.Tensor:
    """EXIF's orientation (tag 0x0112, a short, in either byte order); 1 where there is none."""
    found = tf.constant(1, tf.int64)
    for tag in (b"\x12\x01\x03\x00\x01\x00\x00\x00", b"\x01\x12\x00\x03\x00\x00\x00\x01\x00"):
        # What follows the first tag; where there is none, a zero.
        after = tf.concat([_split(first_bytes, tag)[1:], [b""]], axis=0)[0]
        value = tf.cast(tf.io.decode_raw(tf.strings.join([after, b"\0"]), tf.uint8)[0], tf.int64)
        found = tf.where((value >= 1) & (value <= 8), value, found)
    return found


def _decode(encoded: tf.Tensor, header: _Header) -> tuple[tf.Tensor, tf.Tensor]:
    """Return uint8 [H, W, channels], [0, 0, 0] if it fails, and a JPEG file's number of pixels, int64.

    A JPEG file of many pixels is decoded at a fraction of its size, one of too many not at all.
    """

    def attempt(decoder: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[], tuple[tf.Tensor, tf.Tensor]]:
        return lambda: _or_nothing(encoded, lambda encoded: (decoder(encoded), tf.constant(0, tf.int64)))

    def jpeg(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.reduce_prod(tf.io.extract_jpeg_shape(encoded, tf.int64)[:2])
        decoders = [partial(tf.io.decode_jpeg, encoded, channels=3, ratio=ratio) for ratio in (1, 2, 4)]
        limits = tf.constant([4 * MIN_REDUCED_PIXELS, 16 * MIN_REDUCED_PIXELS, MAX_PIXELS + 1], tf.int64)
        which = tf.reduce_sum(tf.cast(size >= limits, tf.int32))
        return tf.switch_case(which, [*decoders, lambda: _not_decoded()[0]]), size

    def gif(encoded: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_image(_first_frame(encoded), channels=3, expand_animations=False)

    def png() -> tuple[tf.Tensor, tf.Tensor]:
        # Without alpha where that is possible: to compare and drop it takes a quarter of the time of decoding.
        opaque, transparent = (attempt(partial(tf.io.decode_png, channels=channels)) for channels in (3, 4))
        return tf.cond(header.is_opaque, opaque, transparent)

    return tf.switch_case(
        header.format, [png, lambda: _or_nothing(encoded, jpeg), attempt(tf.io.decode_bmp), attempt(gif)]
    )


def _or_nothing(
    encoded: tf.Tensor, attempt: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the result of `attempt`, or of `_not_decoded` where it fails.

    A graph has no `except`, so a data set that drops failed elements takes its place. The data set instantiates `attempt`
    at every call, so `attempt` should be small.
    """
    tried = tf.data.Dataset.from_tensors(encoded).map(attempt).ignore_errors()
    return tried.concatenate(tf.data.Dataset.from_tensors(_not_decoded())).take(1).get_single_element()


def _not_decoded() -> tuple[tf.Tensor, tf.Tensor]:
    return tf.zeros([0, 0, 0], tf.uint8), tf.constant(0, tf.int64)


def _first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """Cut a GIF file after its first frame, because the decoder unpacks all frames before it drops the others.

    Raises:
        InvalidArgumentError: when it runs; the frame is larger than its picture.
    """
    content = tf.cast(tf.io.decode_raw(tf.strings.join([encoded, b"\0" * 16]), tf.uint8), tf.int32)
    end = tf.strings.length(encoded)

    def table(flags: tf.Tensor) -> tf.Tensor:
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)

    def step(at: tf.Tensor, in_blocks: tf.Tensor, in_frame: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        byte = content[at]
        is_frame = ~in_blocks & (byte == 0x2C)
        size = content[at + 5 : at + 9] * [1, 256, 1, 256]
        canvas = content[6:10] * [1, 256, 1, 256]
        fits = tf.reduce_all(tf.reduce_sum(tf.reshape(size, [2, 2]), 1) <= tf.reduce_sum(tf.reshape(canvas, [2, 2]), 1))
        tf.debugging.Assert(fits | ~is_frame, ["a frame is larger than its picture"])
        forward = tf.where(in_blocks, byte + 1, tf.where(is_frame, 11 + table(content[at + 9]), 2))
        return at + forward, ~in_blocks | (byte != 0), in_frame | is_frame

    start = 13 + table(content[10])
    at, _, _ = tf.while_loop(
        lambda at, in_blocks, in_frame: (at < end) & (in_blocks | ~in_frame), step, (start, False, False)
    )
    return tf.strings.join([tf.strings.substr(encoded, 0, at), b";"])


def _rgb(pixels: tf.Tensor, header: _Header) -> tf.Tensor:
    """uint8 [H, W, 3] of uint8 [H, W, channels]: a PNG is blended over white, BMP's fourth channel is dropped."""

    def over_white() -> tf.Tensor:
        # Where a file has no alpha, TensorFlow 2.21 fills in 2**depth - 1, which is not 255 below 8 bits.
        filled = tf.cast(tf.bitwise.left_shift(tf.constant(1, tf.int64), tf.minimum(header.depth, 8)) - 1, tf.uint8)
        return tf.cond(tf.reduce_all(pixels[..., 3] == filled), lambda: pixels[..., :3], blended)

    def blended() -> tf.Tensor:
        rgb, alpha = tf.cast(pixels[..., :3], tf.float32), tf.cast(pixels[..., 3:], tf.float32) / 255
        return tf.cast(alpha * rgb + (1 - alpha) * 255, tf.uint8)

    return tf.case(
        [
            ((header.format == _PNG) & ~header.is_opaque, over_white),
            (tf.shape(pixels)[2] == 1, lambda: tf.repeat(pixels, 3, axis=2)),
        ],
        default=lambda: pixels[..., :3],
    )


def _upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn the picture as EXIF's orientation says."""

    def among(*orientations: int) -> tf.Tensor:
        return tf.reduce_any(orientation == orientations)

    pixels = tf.cond(among(5, 6, 7, 8), lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
    pixels = tf.cond(among(2, 3, 6, 7), lambda: pixels[:, ::-1], lambda: pixels)
    return tf.cond(among(3, 4, 7, 8), lambda: pixels[::-1], lambda: pixels)
