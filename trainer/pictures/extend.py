"""Extend drawings and scans whose ink touches the rim, so that the digit can be told from a shadow at the rim."""

from typing import NamedTuple

import tensorflow as tf

from trainer.pictures.filters import nth_smallest, split_channels

SAME_COLOUR_LEVELS, EXACT_COLOUR_LEVELS, INK_COLOUR_LEVELS = 8, 2, 64
"""Differences, of 255 levels. Up to the first a colour is the same paper's, up to the second it is the same but for JPEG's
rounding, above the third it is ink's."""

RIM_MIN_PAPER = 0.5
"""Share of a picture's rim that must have the colour of paper before it is extended."""

DRAWN_MIN_PAPER = 0.45
"""Mean of the shares of a drawing's rim and of the drawing itself that have exactly the colour of paper."""

STROKE_DEPTHS, LINE_MIN_PAPER = (0.15, 0.25), 0.1
"""Two lines run along each side at these depths, as shares of the drawing's size. Beside a stroke at least one of them
keeps this share of paper; a shadow covers both."""

SAMPLE_SIDE_PIXELS = 64
"""Colours are counted on a sample of about so many pixels along a picture's longer side."""

ROOM = 4
"""A picture is extended on each side by its longer side divided by this."""

ROOM_MAX_SHORTER_SIDES = 4
"""But by at most so many shorter sides: a picture of 2x30,000 pixels would need gigabytes, and no digit is so thin."""


class Extended(NamedTuple):
    """A picture, and what is known about its rim."""

    pixels: tf.Tensor
    """uint8 [H, W, 3]."""
    room: tf.Tensor
    """int32: pixels that it was extended by on each side; 0 if it was not."""
    is_drawing: tf.Tensor
    """bool: it was extended and holds nothing but paper and ink, so its rim is paper."""


def extend(pixels: tf.Tensor) -> Extended:
    """Extend a drawing or scan whose ink touches its rim with more of its paper; leave other pictures as they are.

    At the rim of a photograph a shadow is more likely than ink, unless the paper has one colour up to all corners.

    Args:
        pixels: uint8 [H, W, 3].
    """
    height, width = tf.unstack(tf.shape(pixels)[:2])
    # Colours are int32 [3, ...]: along an innermost dimension of three, TensorFlow broadcasts and reduces slowly.
    rows, columns = (_lines(pixels, axis) for axis in (0, 1))
    rim = tf.concat([tf.reshape(lines[:, 0], [3, -1]) for lines in (rows, columns)], axis=1)
    stride = 1 + tf.maximum(height, width) // SAMPLE_SIDE_PIXELS
    # Gathered: a slice with a stride copies pixel by pixel.
    sample = tf.gather(tf.gather(pixels, tf.range(0, height, stride)), tf.range(0, width, stride), axis=1)
    sample = tf.cast(tf.reshape(split_channels(sample), [3, -1]), tf.int32)

    def share(colours: tf.Tensor, colour: tf.Tensor, tolerance: int) -> tf.Tensor:
        """Return the share of colours [3, ..., n] within a tolerance of one colour [3]: [...]."""
        difference = tf.abs(colours - tf.reshape(colour, [3] + [1] * (colours.shape.rank - 1)))
        return tf.reduce_mean(tf.cast(tf.reduce_max(difference, axis=0) <= tolerance, tf.float32), axis=-1)

    def paper_share(colour: tf.Tensor) -> tf.Tensor:
        """Return the mean of a colour's shares of the rim and of the picture: paper has most of both."""
        return (share(rim, colour, EXACT_COLOUR_LEVELS) + share(sample, colour, EXACT_COLOUR_LEVELS)) / 2

    usual = nth_smallest(rim, tf.shape(rim)[1] // 2)
    farthest = tf.argmax(tf.reduce_sum(tf.abs(rim - usual[:, tf.newaxis]), axis=0))
    other = rim[:, farthest]
    of_other, of_usual = paper_share(other), paper_share(usual)
    paper = tf.where(of_other > of_usual, other, usual)
    corners = tf.concat([rows[:, 0, :, 0], rows[:, 0, :, -1]], axis=1)
    is_even = (share(corners, paper, SAME_COLOUR_LEVELS) == 1) & (share(rim, paper, SAME_COLOUR_LEVELS) > RIM_MIN_PAPER)
    # A photograph never has so much of exactly one colour. A drawing may have ink at a corner or a side, but no shadow.
    paper_shares = tf.stack([share(lines[:, 1:], paper, EXACT_COLOUR_LEVELS) for lines in (rows, columns)])
    has_paper = tf.reduce_max(paper_shares, axis=1) > LINE_MIN_PAPER
    is_drawn = (tf.maximum(of_other, of_usual) > DRAWN_MIN_PAPER) & tf.reduce_all(has_paper)
    has_ink = share(rim, paper, INK_COLOUR_LEVELS) < 1

    extends = (is_even | is_drawn) & has_ink
    shorter, longer = tf.minimum(height, width), tf.maximum(height, width)
    room = tf.where(extends, tf.minimum(longer // ROOM, ROOM_MAX_SHORTER_SIDES * shorter), 0)

    def extended() -> tf.Tensor:
        colour = tf.cast(paper, tf.uint8)
        # In uint8 both operations are modulo 256, so the difference is undone exactly.
        return tf.pad(pixels - colour, [[room, room], [room, room], [0, 0]]) + colour

    return Extended(tf.cond(extends, extended, lambda: pixels), room, is_drawn & has_ink)


def _lines(pixels: tf.Tensor, axis: int) -> tf.Tensor:
    """Return lines of pixels along two opposite sides: at the rim, and at each of `STROKE_DEPTHS`.

    Args:
        pixels: uint8 [H, W, 3].
        axis: 0 for rows, 1 for columns.

    Returns:
        int32 [3, depths, 2, n].
    """
    size = tf.shape(pixels)[axis]
    depths = tf.cast((0.0, *STROKE_DEPTHS) * tf.cast(size, tf.float32), tf.int32)
    lines = tf.gather(pixels, tf.reshape(tf.stack([depths, size - 1 - depths], axis=1), [-1]), axis=axis)
    lines = split_channels(lines) if axis == 0 else tf.transpose(split_channels(lines), [0, 2, 1])
    return tf.cast(tf.reshape(lines, [3, len(STROKE_DEPTHS) + 1, 2, -1]), tf.int32)
