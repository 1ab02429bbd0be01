"""Any picture of a digit -> MNIST's own preparation, as TensorFlow ops, so that it runs inside the served graph.

MNIST's digits are white on black, fitted into 20x20 keeping their aspect ratio, and centred by mass in 28x28. A network
that learned from them answers well about a photograph only if the photograph is prepared in the same way. The served graph
does it, so that all clients get the same preparation.

    file -> decode   -> pixels
         -> extend   -> with more paper around ink that touches the rim of a drawing
         -> locate   -> the ink that is the digit, in the picture reduced to 128 to 256 pixels
         -> extract  -> the digit's ink, in the picture's own resolution -> stroke width -> fitted, centred
         -> presence -> how many digits there are, and how doubtful the image is

Lengths are in pixels of the image that a function works on; light and ink are in 0 to 1.
"""

import functools
from typing import NamedTuple

import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from trainer.pictures.decode import decode
from trainer.pictures.extend import extend
from trainer.pictures.extract import BOX_SIDE_PIXELS, extract_digit
from trainer.pictures.graph_cache import Traced, trace_once
from trainer.pictures.locate import locate_digit
from trainer.pictures.morphology import bounding_box
from trainer.pictures.presence import TRAITS, count_digits, measure_traits, preparation_doubt

PREPARED_MAX_INKED = 0.6
"""Share of the pixels of an image in MNIST's form that may hold ink. MNIST's fullest digit has 0.45."""

PREPARED_BOX_TOLERANCE_PIXELS, PREPARED_CENTRE_TOLERANCE_PIXELS = 2, 1
"""How far the box and the centre of mass of an image in MNIST's form may be from MNIST's."""


class Normalized(NamedTuple):
    """N picture files in MNIST's form."""

    images: tf.Tensor
    """uint8 [N, 28, 28], 0 = paper, 255 = ink; all paper where no digit was located."""
    problem: tf.Tensor
    """string [N]: why a file cannot be used, because it cannot be decoded or is too large; empty if it can."""
    found: tf.Tensor
    """int64 [N]: how many digits stand side by side; 0 for none."""
    box: tf.Tensor
    """float32 [N, 4]: top, left, bottom, right of the digit, as shares of the picture's height and width; 0 if none."""
    traits: tf.Tensor
    """float32 [N, `TRAITS`]: how the ink of what was located lies; see `presence.Traits`."""
    doubt: tf.Tensor
    """float32 [N]: how probable it is that the image does not show the digit that is written, or only a part of it."""


class Prepared(NamedTuple):
    """One picture in MNIST's form."""

    image: tf.Tensor
    """uint8 [28, 28]."""
    is_located: tf.Tensor
    """bool: ink was located in the picture. False where there is none, and where the picture had MNIST's form already."""
    box: tf.Tensor
    """float32 [4], as in `Normalized`, of what was located or of the digit."""
    traits: tf.Tensor
    """float32 [`TRAITS`] of what was located."""


def normalize(encoded: tf.Tensor) -> Normalized:
    """Bring picture files, string [N] with the bytes of PNG, JPEG, BMP or GIF files, to MNIST's form."""
    return Normalized(*_traced()(encoded))


@functools.cache
def _traced() -> Traced:
    return trace_once(_normalize, tf.TensorSpec([None], tf.string))


def _normalize(encoded: tf.Tensor) -> Normalized:
    def one(encoded: tf.Tensor) -> tuple[Prepared, tf.Tensor]:
        pixels, problem = decode(encoded)
        return normalize_pixels(pixels), problem

    spec = tf.TensorSpec
    of_one = Prepared(
        image=spec(IMAGE_SHAPE, tf.uint8),
        is_located=spec([], tf.bool),
        box=spec([4], tf.float32),
        traits=spec([TRAITS], tf.float32),
    )
    prepared, problem = tf.map_fn(
        one, encoded, fn_output_signature=(of_one, spec([], tf.string)), parallel_iterations=8
    )
    images, is_located, box, traits = prepared
    # What follows is computed for all pictures together, which saves some 200 operations a picture.
    found = tf.where(is_located, count_digits(images, traits), tf.cast(tf.reduce_any(images > 0, [1, 2]), tf.int64))
    box = tf.where(found[:, tf.newaxis] > 0, box, 0.0)
    doubt = tf.where(is_located, preparation_doubt(images, traits), 0.0)
    return Normalized(images, problem, found, box, traits, doubt)


def normalize_pixels(pixels: tf.Tensor) -> Prepared:
    """Bring one picture uint8 [H, W, 3] to MNIST's form."""
    return tf.cond(_is_prepared(pixels), lambda: _keep(pixels), lambda: _prepare(pixels))


def _is_prepared(pixels: tf.Tensor) -> tf.Tensor:
    """Return whether the picture has MNIST's form already: 28x28, grey, mostly 0, box and centre of mass as in MNIST."""

    def has_form() -> tf.Tensor:
        grey = pixels[..., 0]
        ink = tf.cast(grey, tf.float32)
        inked = grey > 0
        sides = [_extent(tf.reduce_any(inked, axis)) for axis in (1, 0)]
        mass = tf.reduce_sum(ink) + 1e-6
        middle = (IMAGE_SHAPE[0] - 1) / 2
        off_centre = [
            tf.abs(tf.reduce_sum(tf.reduce_sum(ink, axis) * (tf.range(28.0) - middle)) / mass) for axis in (1, 0)
        ]
        return tf.reduce_all(
            [
                tf.reduce_all(pixels == pixels[..., :1]),
                tf.reduce_mean(tf.cast(inked, tf.float32)) < PREPARED_MAX_INKED,
                tf.reduce_max(ink) > 127,
                tf.abs(tf.maximum(*sides) - BOX_SIDE_PIXELS) <= PREPARED_BOX_TOLERANCE_PIXELS,
                tf.maximum(*off_centre) <= PREPARED_CENTRE_TOLERANCE_PIXELS,
            ]
        )

    return tf.cond(tf.reduce_all(tf.shape(pixels)[:2] == IMAGE_SHAPE), has_form, lambda: False)


def _extent(inked: tf.Tensor) -> tf.Tensor:
    """Pixels from the first true one of bool [n] to the last; 0 where there is none."""
    where = tf.where(inked)[:, 0]
    return tf.cond(tf.size(where) > 0, lambda: tf.cast(where[-1] - where[0] + 1, tf.int32), lambda: 0)


def _keep(pixels: tf.Tensor) -> Prepared:
    """Take a picture in MNIST's form as it is, and the digit in it for granted."""
    image = tf.ensure_shape(pixels[..., 0], IMAGE_SHAPE)
    return Prepared(image, tf.constant(False), bounding_box(image > 0) / IMAGE_SHAPE[0], tf.zeros([TRAITS]))


def _prepare(pixels: tf.Tensor) -> Prepared:
    """Locate the digit in any other picture and bring it to MNIST's form."""
    picture = extend(pixels)
    part, located = locate_digit(picture)

    def prepared() -> Prepared:
        image = extract_digit(part.pixels, located)
        full, reduced = (tf.cast(tf.shape(of)[:2], tf.float32) for of in (part.pixels, located.digit))
        corners = tf.reshape(located.chosen.box, [2, 2]) * (full / reduced)
        corners += tf.cast(part.origin - picture.room, tf.float32)
        box = tf.clip_by_value(corners / tf.cast(tf.shape(pixels)[:2], tf.float32), 0, 1)
        return Prepared(image, tf.constant(True), tf.reshape(box, [4]), measure_traits(located))

    return tf.cond(located.score > 0, prepared, no_digit)


def no_digit() -> Prepared:
    """Return what a picture without any ink gives."""
    return Prepared(tf.zeros(IMAGE_SHAPE, tf.uint8), tf.constant(False), tf.zeros([4]), tf.zeros([TRAITS]))
