"""The bytes of a picture file -> its pixels, as TensorFlow ops: the first half of the `pictures` signature."""

import tensorflow as tf

FORMATS = "PNG, JPEG, BMP or GIF"
MAX_BYTES = 16 * 2**20
"""Size of the largest file accepted."""

MAX_PIXELS = 2**25
"""Pixels of the largest picture accepted: 33.5 million."""


def decode(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The pixels of one file, float32 [H, W, 3], 0 to 255, and what is wrong with it: a string, empty if nothing is.

    A file that cannot be decoded gives one white pixel.
    """
    pixels = _decode_or_nothing(encoded)
    failed = tf.size(pixels) == 0
    problem = tf.where(failed, f"cannot be decoded; expected a whole {FORMATS} file", "")
    rgb, alpha = tf.cast(pixels[..., :3], tf.float32), tf.cast(pixels[..., 3:], tf.float32) / 255
    over_white = alpha * rgb + (1 - alpha) * 255
    return tf.cond(failed, lambda: tf.fill([1, 1, 3], 255.0), lambda: over_white), problem


def _decode_or_nothing(encoded: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 4], with no pixels where the decoder fails.

    A graph has no `except`; a data set that leaves out what fails is one.
    """

    def decode_one(encoded: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.concat([pixels, tf.fill([*tf.unstack(tf.shape(pixels)[:2]), 1], tf.constant(255, tf.uint8))], axis=2)

    attempt = tf.data.Dataset.from_tensors(encoded).map(decode_one).ignore_errors()
    nothing = tf.data.Dataset.from_tensors(tf.zeros([0, 0, 4], tf.uint8))
    return attempt.concatenate(nothing).take(1).get_single_element()
