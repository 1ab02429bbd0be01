"""The digit that was found in a picture -> MNIST's form: the second half, in the picture's own resolution.

the digit's part of the picture -> ink -> MNIST's pen -> fitted, centred
"""

import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from trainer.pictures.filters import blur, bounds, contraharmonic, scale_and_translate, widest
from trainer.pictures.locate import Look

BOX = 20
"""MNIST fits each digit into a square of so many pixels (yann.lecun.com/exdb/mnist)."""

READ = 96
"""Longer side, in pixels, of the digit's part of the picture when it is read."""

REACH = 4
"""How far around the digit, in pixels of the look, ink that is too faint to be part of it is read too."""

INK = 0.25, 1.15
"""The ink that is nothing and the ink that is full, of the usual one: less of a span closes the loops of coarse pictures,
more leaves pale what was pressed less."""

THINNEST, THICKEST = 2.0, 3.6
"""Width of strokes, in pixels of MNIST, between which nearly all of its training digits lie."""


def read_digit(pixels: tf.Tensor, look: Look) -> tf.Tensor:
    """uint8 [28, 28] of the digit that was found."""
    full, small = (tf.cast(tf.shape(image)[:2], tf.float32) for image in (pixels, look.digit))
    ratio = full / small
    top, bottom, left, right = bounds(look.digit)
    margin = 2.0 + 0.05 * tf.maximum(bottom - top, right - left)
    start = tf.maximum(tf.stack([top, left]) - margin, 0)
    stop = tf.minimum(tf.stack([bottom, right]) + margin, small)
    first, last = tf.cast(tf.floor(start * ratio), tf.int32), tf.cast(tf.math.ceil(stop * ratio), tf.int32)
    part = pixels[first[0] : last[0], first[1] : last[1]]
    extent = tf.cast(last - first, tf.float32)
    size = tf.maximum(tf.cast(tf.round(extent * (READ / tf.reduce_max(extent))), tf.int32), 4)
    scale = tf.cast(size, tf.float32) / extent

    def enlarged(values: tf.Tensor) -> tf.Tensor:
        return scale_and_translate(values, size, scale * ratio, -tf.cast(first, tf.float32) * scale, "triangle")

    rgb = tf.raw_ops.ScaleAndTranslate(
        images=part[tf.newaxis], size=size, scale=scale, translation=[0.0, 0.0], kernel_type="triangle", antialias=True
    )[0]
    grey = blur(tf.linalg.matvec(rgb / 255, look.axis), 1.0)
    ink = tf.math.divide_no_nan(tf.nn.relu(enlarged(look.paper) - grey), enlarged(look.light))
    ink = ink * enlarged(widest(tf.cast(look.digit, tf.float32), 2 * REACH + 1))
    faintest, fullest = INK
    ink = tf.clip_by_value((ink / (contraharmonic(ink) + 1e-6) - faintest) / (fullest - faintest), 0, 1)
    return _fit(_with_usual_pen(ink))


def _with_usual_pen(ink: tf.Tensor) -> tf.Tensor:
    """The digit as if written with a pen of MNIST's width.

    The width of strokes is twice their area over the length of their edges, whatever they form.
    """
    reach = 8
    ink = tf.pad(ink, [[reach, reach], [reach, reach]])
    top, bottom, left, right = bounds(ink >= 0.5 * tf.reduce_max(ink))
    extent = tf.maximum(bottom - top, right - left)
    width = stroke_width(ink)
    wanted = tf.clip_by_value(width * BOX / extent, THINNEST, THICKEST)
    # Widening by r on each side makes the digit larger too: (width + 2 r) / (extent + 2 r) = wanted / BOX.
    grow = (wanted * extent / BOX - width) / (2 * (1 - wanted / BOX))
    sign = tf.sign(grow)
    grow = tf.minimum(tf.abs(grow), float(reach))

    def widen(step: tf.Tensor, ink: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values = sign * ink
        square = tf.nn.max_pool2d(values[tf.newaxis, ..., tf.newaxis], 3, 1, "SAME")[0, ..., 0]
        beside = tf.maximum(
            tf.nn.max_pool2d(values[tf.newaxis, ..., tf.newaxis], [3, 1], 1, "SAME"),
            tf.nn.max_pool2d(values[tf.newaxis, ..., tf.newaxis], [1, 3], 1, "SAME"),
        )[0, ..., 0]
        # A disc grows by 1 in every direction: between the cross, slow along diagonals, and the square, too fast.
        wider = sign * (0.6 * beside + 0.4 * square)
        share = tf.minimum(grow - step, 1.0)
        return step + 1, (1 - share) * ink + share * wider

    return tf.while_loop(lambda step, _: step < grow, widen, (0.0, ink))[1]


def stroke_width(ink: tf.Tensor) -> tf.Tensor:
    """Mean width of the strokes of float32 [h, w], in pixels: twice the area over the length of the edges."""
    down, across = tf.image.image_gradients(ink[tf.newaxis, ..., tf.newaxis])
    edges = tf.reduce_sum(tf.sqrt(down**2 + across**2))
    return 2 * tf.reduce_sum(ink) / (edges + 1e-6)


def _fit(ink: tf.Tensor) -> tf.Tensor:
    """uint8 [28, 28] of ink float32 [h, w]: the box fitted, the mass in the middle, the fullest ink 255."""
    top, bottom, left, right = bounds(ink >= 0.3 * tf.reduce_max(ink))
    scale = BOX / tf.maximum(bottom - top, right - left)
    mass = tf.reduce_sum(ink) + 1e-6
    centre = [
        tf.reduce_sum(tf.reduce_sum(ink, axis) * (tf.range(tf.cast(tf.shape(ink)[1 - axis], tf.float32)) + 0.5)) / mass
        for axis in (1, 0)
    ]
    translation = tf.stack([side / 2 - scale * middle for side, middle in zip(IMAGE_SHAPE, centre, strict=True)])
    fitted = scale_and_translate(ink, tf.constant(IMAGE_SHAPE), tf.stack([scale, scale]), translation, "box")
    fitted = tf.math.divide_no_nan(tf.nn.relu(fitted), tf.reduce_max(fitted))
    return tf.cast(tf.round(255 * fitted), tf.uint8)
