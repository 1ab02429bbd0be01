"""Any picture of a digit -> MNIST's own preparation, as TensorFlow ops, so that it runs inside the served graph.

MNIST's digits are white on black, fitted into 20x20 keeping their aspect, and centred by mass in 28x28. A network that
learned from them answers well about a photograph only after the same has been done to it, and doing it here, once, means
that no client can do it otherwise.
"""

import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from trainer.decode import decode

BOX = 20
"""MNIST fits each digit into a square of so many pixels (yann.lecun.com/exdb/mnist)."""


def normalize(encoded: tf.Tensor) -> tf.Tensor:
    """Bring picture files to MNIST's form.

    Args:
        encoded: string [N], the bytes of PNG, JPEG, BMP or GIF files.

    Returns:
        uint8 [N, 28, 28], 0 = paper, 255 = ink; all paper where no digit was found.

    Raises:
        InvalidArgumentError: when it runs; some cannot be decoded, or are too large. The message names them.
    """

    def one(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, problem = decode(encoded)
        return normalize_pixels(pixels), problem

    images, problems = tf.map_fn(
        one,
        encoded,
        fn_output_signature=(tf.TensorSpec(IMAGE_SHAPE, tf.uint8), tf.TensorSpec([], tf.string)),
        parallel_iterations=8,
    )
    bad = tf.where(problems != "")[:, 0]
    message = tf.strings.join(["picture ", tf.strings.as_string(bad), " ", tf.gather(problems, bad)])
    with tf.control_dependencies(
        [tf.debugging.Assert(tf.size(bad) == 0, [tf.strings.reduce_join(message, separator="; ")])]
    ):
        return tf.identity(images)


def normalize_pixels(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 [28, 28], 0 = paper, 255 = ink, of a picture float32 [H, W, 3], 0 to 255."""
    grey = tf.reduce_mean(pixels, axis=2)
    border = tf.concat([grey[0], grey[-1], grey[:, 0], grey[:, -1]], axis=0)
    paper = tf.sort(border)[tf.size(border) // 2]
    ink = tf.nn.relu(tf.where(paper > 127, paper - grey, grey - paper))
    strength = tf.reduce_max(ink)
    return tf.cond(strength < 16, lambda: tf.zeros(IMAGE_SHAPE, tf.uint8), lambda: _fit(ink / strength))


def _fit(ink: tf.Tensor) -> tf.Tensor:
    """uint8 [28, 28] of ink float32 [H, W], 0 to 1: boxed, fitted and centred by mass."""
    rows, columns = (tf.where(tf.reduce_max(ink, axis) > 0.2)[:, 0] for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (tf.cast(size, tf.float32) for size in tf.unstack(tf.shape(ink)))
    mass = tf.reduce_sum(ink)
    y = tf.reduce_sum(tf.reduce_sum(ink, 1) * (tf.range(height) + 0.5)) / mass
    x = tf.reduce_sum(tf.reduce_sum(ink, 0) * (tf.range(width) + 0.5)) / mass
    scale = BOX / tf.maximum(height, width)
    fitted = tf.raw_ops.ScaleAndTranslate(
        images=ink[tf.newaxis, ..., tf.newaxis],
        size=list(IMAGE_SHAPE),
        scale=[scale, scale],
        translation=[side / 2 - scale * centre for side, centre in zip(IMAGE_SHAPE, (y, x), strict=True)],
        kernel_type="triangle",
        antialias=True,
    )[0, ..., 0]
    return tf.cast(tf.round(255 * tf.clip_by_value(fitted, 0, 1)), tf.uint8)
