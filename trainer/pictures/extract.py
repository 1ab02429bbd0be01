"""Extract the located digit: the second half of its preparation, in the picture's own resolution.

the digit's part of the picture -> ink -> strokes of MNIST's width -> fitted and centred, 28x28
"""

import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from trainer.pictures.filters import contraharmonic_mean, gaussian_blur, scale_and_translate
from trainer.pictures.locate import Located
from trainer.pictures.morphology import bounding_box, dilate, dilate_along, stroke_width

BOX_SIDE_PIXELS = 20
"""MNIST fits each digit into a square of so many pixels (yann.lecun.com/exdb/mnist)."""

EXTRACT_SIDE_PIXELS = 96
"""Longer side of the digit's part of the picture when its ink is measured: nearly five pixels for one of MNIST's."""

MIN_SIDE_PIXELS = 4
"""Least shorter side of it."""

MARGIN_PIXELS, MARGIN_FRACTION = 2.0, 0.05
"""Paper that is taken along around the digit: pixels of the reduced picture, and a share of the digit's longer side."""

REACH_PIXELS = 4
"""Pixels of the reduced picture around the digit in which fainter ink still belongs to it."""

ENLARGE_MARGIN_PIXELS = 4
"""Pixels of the reduced picture that are taken along around the digit's part before it is resampled. At the strongest
reduction, from 256 to 96 pixels, the kernel reaches 2.7 pixels."""

INK_RANGE = 0.25, 1.15
"""Ink below 0.25 times the usual value becomes 0, above 1.15 times becomes 255. A narrower range closes the loops of
coarse pictures; a wider one leaves light strokes pale."""

STROKE_RANGE_PIXELS = 2.0, 3.6
"""Stroke widths between which nearly all of MNIST's training digits lie."""

MAX_WIDENING_PIXELS = 8
"""Strokes are widened or thinned by at most this on each side. A hairline needs half of it."""

BOX_MIN_INK = 0.3
"""Ink above this share of the darkest counts for the digit's bounding box. MNIST's own edges are as faint."""


def extract_digit(pixels: tf.Tensor, located: Located) -> tf.Tensor:
    """Bring the located digit to MNIST's form.

    Args:
        pixels: uint8 [H, W, 3], the part of the picture that was searched.
        located: what was located in it, with at least one pixel of ink.

    Returns:
        uint8 [28, 28], 0 = paper, 255 = ink.
    """
    return _fit(_with_usual_stroke_width(_measure_ink(pixels, located)))


def _measure_ink(pixels: tf.Tensor, located: Located) -> tf.Tensor:
    """float32 [h, w], 0 to 1: the ink of the digit and its surroundings, with a longer side of `EXTRACT_SIDE_PIXELS`."""
    full, reduced = (tf.cast(tf.shape(image)[:2], tf.float32) for image in (pixels, located.digit))
    ratio = full / reduced
    box = located.chosen.box
    margin = MARGIN_PIXELS + MARGIN_FRACTION * tf.reduce_max(box[2:] - box[:2])
    start, stop = tf.maximum(box[:2] - margin, 0), tf.minimum(box[2:] + margin, reduced)
    first, last = tf.cast(tf.floor(start * ratio), tf.int32), tf.cast(tf.math.ceil(stop * ratio), tf.int32)
    part = pixels[first[0] : last[0], first[1] : last[1]]
    extent = tf.cast(last - first, tf.float32)
    size = tf.cast(tf.round(extent * (EXTRACT_SIDE_PIXELS / tf.reduce_max(extent))), tf.int32)
    size = tf.maximum(size, MIN_SIDE_PIXELS)
    scale = tf.cast(size, tf.float32) / extent

    rgb = scale_and_translate(part[tf.newaxis], size, scale, tf.zeros([2]), "triangle")[0]
    grey = gaussian_blur(tf.tensordot(rgb / 255, located.axis, 1), 1.0)
    # The digit's part of three images of the reduced picture, enlarged together, as a batch: channels are slow to stack.
    around = tf.cast(tf.stack([first, last]), tf.float32) / ratio
    begin = tf.cast(tf.maximum(around[0] - ENLARGE_MARGIN_PIXELS, 0), tf.int32)
    end = tf.cast(around[1] + ENLARGE_MARGIN_PIXELS, tf.int32)
    near = tf.cast(dilate(located.digit, 2 * REACH_PIXELS + 1), tf.float32)
    parts = [image[begin[0] : end[0], begin[1] : end[1]] for image in (located.ink.paper, located.ink.light, near)]
    shift = (tf.cast(begin, tf.float32) * ratio - tf.cast(first, tf.float32)) * scale
    enlarged = scale_and_translate(tf.stack(parts)[..., tf.newaxis], size, scale * ratio, shift, "triangle")
    paper, light, near = tf.unstack(enlarged[..., 0])
    ink = tf.math.divide_no_nan(tf.nn.relu(paper - grey), light) * near
    faintest, fullest = INK_RANGE
    return tf.clip_by_value((ink / (contraharmonic_mean(ink) + 1e-6) - faintest) / (fullest - faintest), 0, 1)


def _with_usual_stroke_width(ink: tf.Tensor) -> tf.Tensor:
    """Return the digit as if written with a pen of a width within `STROKE_RANGE_PIXELS` after fitting."""
    room = MAX_WIDENING_PIXELS
    ink = tf.pad(ink, [[room, room], [room, room]])
    box = bounding_box(ink >= 0.5 * tf.reduce_max(ink))
    extent = tf.reduce_max(box[2:] - box[:2])
    width = stroke_width(ink)
    wanted = tf.clip_by_value(width * BOX_SIDE_PIXELS / extent, *STROKE_RANGE_PIXELS)
    # Widening by r on each side makes the digit larger too: (width + 2 r) / (extent + 2 r) = wanted / box.
    widening = (wanted * extent / BOX_SIDE_PIXELS - width) / (2 * (1 - wanted / BOX_SIDE_PIXELS))
    sign = tf.sign(widening)  # where it is negative, the paper is widened
    radius = tf.minimum(tf.abs(widening), float(MAX_WIDENING_PIXELS))

    def widen(step: tf.Tensor, ink: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values = sign * ink
        down, across = dilate_along(values, 3, -2), dilate_along(values, 3, -1)
        square, cross = dilate_along(down, 3, -1), tf.maximum(down, across)
        # A disc grows by 1 in every direction. Along diagonals the cross grows by 0.7 and the square by 1.4.
        wider = sign * (0.6 * cross + 0.4 * square)
        share = tf.minimum(radius - step, 1.0)
        return step + 1, (1 - share) * ink + share * wider

    return tf.while_loop(lambda step, _: step < radius, widen, (0.0, ink))[1]


def _fit(ink: tf.Tensor) -> tf.Tensor:
    """uint8 [28, 28] of ink float32 [h, w]: fitted into the box, its centre of mass in the middle, the darkest ink 255."""
    box = bounding_box(ink >= BOX_MIN_INK * tf.reduce_max(ink))
    scale = BOX_SIDE_PIXELS / tf.reduce_max(box[2:] - box[:2])
    mass = tf.reduce_sum(ink) + 1e-6
    centre = [
        tf.reduce_sum(tf.reduce_sum(ink, axis) * (tf.range(tf.cast(tf.shape(ink)[1 - axis], tf.float32)) + 0.5)) / mass
        for axis in (1, 0)
    ]
    translation = tf.stack([side / 2 - scale * middle for side, middle in zip(IMAGE_SHAPE, centre, strict=True)])
    fitted = scale_and_translate(
        ink[tf.newaxis, ..., tf.newaxis], tf.constant(IMAGE_SHAPE), tf.stack([scale, scale]), translation, "box"
    )[0, ..., 0]
    fitted = tf.math.divide_no_nan(tf.nn.relu(fitted), tf.reduce_max(fitted))
    return tf.cast(tf.round(255 * fitted), tf.uint8)
