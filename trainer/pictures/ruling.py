"""The lines that paper is ruled with, in a mask of what is darker than the paper, in TensorFlow ops."""

import tensorflow as tf

from trainer.pictures.filters import highest

RULE = 7
"""Ruling is thinner than this, in pixels of the mask."""


def ruling(inked: tf.Tensor) -> tf.Tensor:
    """The thin straight lines from rim to rim of bool [h, w], without what crosses them."""
    across = _lines_across(inked)
    return across | tf.transpose(_lines_across(tf.transpose(inked & ~across)))


def _lines_across(inked: tf.Tensor) -> tf.Tensor:
    tall = tf.cast(inked, tf.float32)
    tall = highest(-highest(-tall, RULE), RULE) > 0  # of columns, the runs of at least RULE
    thin = inked & ~tall
    slopes = tf.linspace(-0.35, 0.35, 29)
    height, width = tf.unstack(tf.shape(inked))
    x = tf.range(tf.cast(width, tf.float32))
    # The line through (y, middle) with each slope: [slopes, width] below y.
    below = tf.cast(tf.round(slopes[:, tf.newaxis] * (x - tf.reduce_mean(x))), tf.int32)

    def lines_across() -> tf.Tensor:
        reach = tf.reduce_max(below)
        padded = tf.pad(highest(tf.cast(thin, tf.float32), 3), [[reach, reach], [0, 0]])
        columns = tf.transpose(padded)  # [width, height + 2 reach]
        y = tf.range(height)
        positions = y[:, tf.newaxis, tf.newaxis] + below + reach  # [height, slopes, width]
        flat = tf.range(width) * tf.shape(columns)[1] + positions
        covered = tf.reduce_mean(tf.gather(tf.reshape(columns, [-1]), flat[..., ::2]), axis=2)
        lines = tf.where(covered > 0.75)  # [n, (y, slope)]
        rows = tf.cast(lines[:, :1], tf.int32) + tf.gather(below, lines[:, 1])  # [n, width]
        rows = tf.clip_by_value(rows, 0, height - 1)
        points = tf.stack([rows, tf.broadcast_to(tf.range(width), tf.shape(rows))], axis=-1)
        ruled = tf.scatter_nd(tf.reshape(points, [-1, 2]), tf.ones([tf.size(rows)]), tf.shape(inked))
        return (highest(ruled, 3) > 0) & thin

    edges = tf.reduce_any(thin[:, :3]) & tf.reduce_any(thin[:, -3:])
    return tf.cond(edges, lines_across, lambda: tf.zeros_like(inked))
