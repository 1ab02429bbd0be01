"""Choose the digit: which of the connected components of an ink mask belong to it.

All images here are the reduced picture, h x w. Lengths of components are in its pixels.
"""

from typing import NamedTuple

import tensorflow as tf

from trainer.pictures.morphology import connected_components, dilate

JOIN_WINDOW_PIXELS = 3
"""Ink is dilated by this window before it is labelled, so that gaps of up to two pixels do not part a stroke."""

OFF_CENTRE_PENALTY = 0.5
"""Share of its score that a component loses when its middle lies on the rim of the picture."""

RIM_WEIGHT, CORNER_WEIGHT, RIM_EXPONENT = 1.1, 1.6, 6
"""A component's score is divided by 1 + (weight * share of its length that lies on the rim) ** exponent. A shadow that
comes in from the rim nearly always holds a corner of the picture; a digit that fills the picture does not."""

CORNER_PIXELS = 4
"""A component holds a corner if a pixel of it is less than this away from it, rows plus columns."""

FRAME_BAND, FRAME_MIN_SHARE = 0.1, 0.9
"""A component is a frame around the digit if over 90 % of it lies within a tenth of its longer side from its own box."""

MIN_MASS = 0.05
"""Components lighter than this share of the main one's mass are specks."""

MAX_GAP, MAX_GAP_ABOVE, MAX_GAP_BESIDE = 0.15, 0.3, 0.06
"""Components farther from the main one than the first share of its longer side do not belong to the digit. The second is
for those above and below it, such as the bar of a five; the third for those beside it that are as tall as digits."""

DIGIT_MIN_HEIGHT, DIGIT_MAX_HEIGHT, DIGIT_MAX_ASPECT, DIGIT_MIN_MASS = 0.5, 2.0, 1.5, 0.15
"""Components beside the main one are digits themselves if their height and mass, as shares of the main one's, and their
width, as a share of the taller of the two, are within these."""

LINE_MAX_OFFSET, LINE_MAX_SLOPE = 0.35, 0.35
"""Digits of a number are beside each other: their middles differ in y by at most the first share of the height, and by the
second share of their distance in x, since a line of writing may run 19 degrees askew."""

STRAY_MIN_MASS = 0.02
"""Other components of this share of the digit's mass are strays; lighter ones are specks."""

INNER_MIN_MASS = 0.005
"""Components within the main one's bounding box of this share of the digit's mass count, such as the eyes of a face."""

MAX_RIM_SHARE = 0.5
"""Components with more of their length on the rim of the picture do not belong to the digit."""


class Counts(NamedTuple):
    """One value for each kind of component: in `Chosen.counts` the number of these, float32."""

    neighbours: tf.Tensor
    """Digits beside the chosen one."""
    pieces: tf.Tensor
    """Components that form the digit."""
    inner: tf.Tensor
    """Components within the main one's bounding box, part of the digit or not."""
    strays: tf.Tensor
    """Components that are neither digit, neighbour nor speck."""


class Chosen(NamedTuple):
    """The components that are the digit, and how the others lie around it."""

    score: tf.Tensor
    """float32: how much like a digit the main component is."""
    digit: tf.Tensor
    """bool [h, w]: the digit's pixels."""
    box: tf.Tensor
    """float32 [4]: top, left, bottom, right of the digit's pixels; zeros if there are none."""
    counts: tf.Tensor
    """float32 [4], in the order of `Counts`. One tensor, because a loop adds operations for each that it carries."""
    other_ink: tf.Tensor
    """float32: share of the ink that is neither the digit's nor its neighbours'."""


def choose_digit(mask: tf.Tensor, ink: tf.Tensor) -> Chosen:
    """Choose the components that are the digit.

    Args:
        mask: bool [h, w], the pixels that are ink; at least one.
        ink: float32 [h, w], how much darker than paper each pixel is.
    """
    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(mask)))
    joined = dilate(mask, JOIN_WINDOW_PIXELS)
    where = tf.where(joined)
    size = tf.shape(mask, tf.int64)
    labels, count = connected_components(where, size)
    y, x = tf.unstack(tf.cast(where, tf.float32), axis=1)

    def total(values: tf.Tensor) -> tf.Tensor:
        return tf.math.unsorted_segment_sum(values, labels, count)

    def lowest(values: tf.Tensor) -> tf.Tensor:
        return tf.math.unsorted_segment_min(values, labels, count)

    mass = total(tf.gather_nd(tf.where(mask, ink, 0.0), where))
    top, left, bottom, right = lowest(y), lowest(x), 1 - lowest(-y), 1 - lowest(-x)
    longer = tf.maximum(bottom - top, right - left)
    rim_share = total(tf.cast((y == 0) | (x == 0) | (y == height - 1) | (x == width - 1), tf.float32)) / longer
    from_corner = tf.minimum(y, height - 1 - y) + tf.minimum(x, width - 1 - x)
    rim_weight = tf.where(lowest(from_corner) < CORNER_PIXELS, CORNER_WEIGHT, RIM_WEIGHT)
    off_centre = tf.maximum(tf.abs((top + bottom) / height - 1), tf.abs((left + right) / width - 1))
    score = mass * (1 - OFF_CENTRE_PENALTY * off_centre) / (1 + (rim_weight * rim_share) ** RIM_EXPONENT)
    to_side = tf.reduce_min(
        [y - tf.gather(top, labels), x - tf.gather(left, labels),
         tf.gather(bottom, labels) - 1 - y, tf.gather(right, labels) - 1 - x], axis=0
    )  # fmt: skip
    in_band = total(tf.cast(to_side < FRAME_BAND * tf.gather(longer, labels), tf.float32)) / total(tf.ones_like(y))
    is_frame = in_band > FRAME_MIN_SHARE

    boxes = tf.stack([top, left, bottom, right])

    def box_of(which: tf.Tensor) -> list[tf.Tensor]:
        # One gather: a slice at each of its uses takes several operations.
        return tf.unstack(tf.gather(boxes, which, axis=1))

    def inside(outer: list[tf.Tensor]) -> tf.Tensor:
        return (top > outer[0]) & (left > outer[1]) & (bottom < outer[2]) & (right < outer[3])

    def around(inner: list[tf.Tensor]) -> tf.Tensor:
        return (top < inner[0]) & (left < inner[1]) & (bottom > inner[2]) & (right > inner[3])

    best = tf.argmax(score)
    # Inside a frame the best component is the digit.
    is_framed = tf.gather(is_frame, best) & inside(box_of(best)) & (mass > MIN_MASS * tf.gather(mass, best))
    framed = tf.where(is_framed, score, 0.0)
    main = tf.where(tf.reduce_any(framed > 0), tf.argmax(framed), best)
    main_box = box_of(main)
    main_top, main_left, main_bottom, main_right = main_box
    main_mass, main_longer = tf.gather(mass, main), tf.gather(longer, main)
    main_height = main_bottom - main_top
    gap_y = tf.maximum(top - main_bottom, main_top - bottom)
    gap_x = tf.maximum(left - main_right, main_left - right)
    height_share = (bottom - top) / main_height
    max_gap_x = tf.where((height_share > DIGIT_MIN_HEIGHT) & (gap_y < 0), MAX_GAP_BESIDE, MAX_GAP)
    max_gap_y = tf.where(gap_x < 0, MAX_GAP_ABOVE, MAX_GAP)
    is_near = (gap_y < max_gap_y * main_longer) & (gap_x < max_gap_x * main_longer)
    belongs = is_near & (mass > MIN_MASS * main_mass) & (rim_share < MAX_RIM_SHARE) & ~(is_frame & around(main_box))
    is_main = tf.range(count, dtype=tf.int64) == main
    belongs = belongs | is_main
    offset_y = tf.abs(top + bottom - main_top - main_bottom) / 2
    offset_x = tf.abs(left + right - main_left - main_right) / 2
    is_neighbour = (
        ~belongs
        & (gap_x > 0)
        & (height_share > DIGIT_MIN_HEIGHT)
        & (height_share < DIGIT_MAX_HEIGHT)
        & (right - left < DIGIT_MAX_ASPECT * tf.maximum(bottom - top, main_height))
        & (offset_y < LINE_MAX_OFFSET * main_height + LINE_MAX_SLOPE * offset_x)
        & (mass > DIGIT_MIN_MASS * main_mass)
    )
    digit_mass = tf.reduce_sum(tf.where(belongs, mass, 0.0))
    is_stray = ~belongs & ~is_neighbour & (mass > STRAY_MIN_MASS * digit_mass)
    is_inner = ~is_main & inside(main_box) & (mass > INNER_MIN_MASS * digit_mass)
    writing = tf.reduce_sum(tf.where(belongs | is_neighbour, mass, 0.0))

    top_left = tf.reduce_min(tf.where(belongs, boxes[:2], boxes.dtype.max), axis=1)
    bottom_right = tf.reduce_max(tf.where(belongs, boxes[2:], 0.0), axis=1)

    kinds = Counts(neighbours=is_neighbour, pieces=belongs, inner=is_inner, strays=is_stray)

    return Chosen(
        score=tf.gather(score, main),
        digit=tf.scatter_nd(where, tf.gather(belongs, labels), size),
        box=tf.concat([top_left, bottom_right], axis=0),
        counts=tf.reduce_sum(tf.cast(tf.stack(kinds), tf.float32), axis=1),
        other_ink=1 - writing / tf.reduce_sum(mass),
    )


def choose_nothing(mask: tf.Tensor) -> Chosen:
    """Return the choice where there is no ink."""
    zero = tf.constant(0.0)
    return Chosen(zero, tf.zeros_like(mask), tf.zeros([4]), tf.zeros([len(Counts._fields)]), zero)
