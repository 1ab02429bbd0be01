"""Any picture of a digit -> MNIST's own preparation, as TensorFlow ops, so that it runs inside the served graph.

MNIST's digits are white on black, fitted into 20x20 keeping their aspect ratio, and centred by mass in 28x28. A network
that learned from them answers well about a photograph only if the photograph is prepared in the same way. The served graph
does it, so that all clients get the same preparation.

    file -> decode  -> pixels
         -> locate  -> the ink that is the digit, in the picture reduced to 128 to 256 pixels
         -> extract -> the digit's ink, in the picture's own resolution -> stroke width -> fitted, centred

Lengths are in pixels of the image that a function works on; light and ink are in 0 to 1.
"""

from typing import NamedTuple

import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from trainer.pictures.decode import decode
from trainer.pictures.extract import BOX_SIDE_PIXELS, extract_digit
from trainer.pictures.locate import locate_digit

PREPARED_MAX_INKED = 0.6
"""Share of the pixels of an image in MNIST's form that may hold ink. MNIST's fullest digit has 0.45."""

PREPARED_BOX_TOLERANCE_PIXELS, PREPARED_CENTRE_TOLERANCE_PIXELS = 2, 1
"""How far the box and the centre of mass of an image in MNIST's form may be from MNIST's."""

SAME_COLOUR_LEVELS, EXACT_COLOUR_LEVELS, INK_COLOUR_LEVELS = 8, 2, 64
"""Differences, of 255 levels. Up to the first a colour is the same paper's, up to the second it is the same but for JPEG's
rounding, above the third it is ink's."""

RIM_MIN_PAPER = 0.5
"""Share of a picture's rim that must have the colour of paper before it is extended."""

DRAWN_MIN_PAPER = 0.45
"""Mean of the shares of a drawing's rim and of the drawing itself that have exactly the colour of paper."""

STROKE_MAX_DEPTH, LINE_MIN_PAPER = 0.15, 0.1
"""A stroke along a side of a drawing reaches less deep into it, as a share of its size: a line there has at least this
share of paper. A shadow reaches deeper."""

SAMPLE_SIDE_PIXELS = 256
"""Every n-th pixel of a picture is enough to count colours; so many along its longer side."""

ROOM = 4
"""A picture is extended on each side by its longer side divided by this."""


class Normalized(NamedTuple):
    """N picture files in MNIST's form."""

    images: tf.Tensor
    """uint8 [N, 28, 28], 0 = paper, 255 = ink; all paper where no digit was located."""
    problem: tf.Tensor
    """string [N]: why a file cannot be used, because it cannot be decoded or is too large; empty if it can."""


# Compiled here, so that a process which exports several models traces the graph once. AutoGraph finds nothing to do.
@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def normalize(encoded: tf.Tensor) -> Normalized:
    """Bring picture files, string [N] with the bytes of PNG, JPEG, BMP or GIF files, to MNIST's form."""

    def one(encoded: tf.Tensor) -> Normalized:
        pixels, problem = decode(encoded)
        return Normalized(normalize_pixels(pixels), problem)

    return tf.map_fn(
        one,
        encoded,
        fn_output_signature=Normalized(tf.TensorSpec(IMAGE_SHAPE, tf.uint8), tf.TensorSpec([], tf.string)),
        parallel_iterations=8,
    )


def normalize_pixels(pixels: tf.Tensor) -> tf.Tensor:
    """Bring one picture uint8 [H, W, 3] to MNIST's form, uint8 [28, 28], 0 = paper, 255 = ink."""
    return tf.cond(
        _is_prepared(pixels),
        lambda: tf.ensure_shape(pixels[..., 0], IMAGE_SHAPE),
        lambda: _prepare(pixels),
    )


def _is_prepared(pixels: tf.Tensor) -> tf.Tensor:
    """Whether the picture has MNIST's form already: 28x28, grey, mostly 0, box and centre of mass where MNIST has them."""

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


def _prepare(pixels: tf.Tensor) -> tf.Tensor:
    part, located = locate_digit(*_with_room(pixels))
    return tf.cond(located.score > 0, lambda: extract_digit(part, located), lambda: tf.zeros(IMAGE_SHAPE, tf.uint8))


def _with_room(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Extend a drawing or scan whose ink touches its rim with more of its paper; leave other pictures as they are.

    At the rim of a photograph a shadow is more likely than ink, unless the paper has one colour up to all corners.

    Returns:
        The picture, and whether it is an extended drawing: then its rim is paper, and there is nothing but paper and ink.
    """
    sides = [tf.cast(side, tf.int32) for side in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])]
    rim = tf.concat(sides, axis=0)
    stride = 1 + tf.reduce_max(tf.shape(pixels)) // SAMPLE_SIDE_PIXELS
    sample = tf.cast(tf.reshape(pixels[::stride, ::stride], [-1, 3]), tf.int32)

    def share(colours: tf.Tensor, paper: tf.Tensor, tolerance: int) -> tf.Tensor:
        return tf.reduce_mean(tf.cast(tf.reduce_max(tf.abs(colours - paper), axis=1) <= tolerance, tf.float32))

    def paper_share(colour: tf.Tensor) -> tf.Tensor:
        """Paper has most of the rim and of the picture; where they differ, both count."""
        return (share(rim, colour, EXACT_COLOUR_LEVELS) + share(sample, colour, EXACT_COLOUR_LEVELS)) / 2

    usual = tf.sort(rim, axis=0)[tf.shape(rim)[0] // 2]
    other = rim[tf.argmax(tf.reduce_sum(tf.abs(rim - usual), axis=1))]
    paper = tf.where(paper_share(other) > paper_share(usual), other, usual)
    corners = tf.stack([sides[0][0], sides[0][-1], sides[1][0], sides[1][-1]])
    is_even = (share(corners, paper, SAME_COLOUR_LEVELS) == 1) & (share(rim, paper, SAME_COLOUR_LEVELS) > RIM_MIN_PAPER)
    # No camera gives so much of one exact colour: in a drawing a corner may hold ink, and even a side, but not a shadow.
    height, width = tf.unstack(tf.shape(pixels)[:2])
    down, right = (tf.cast(STROKE_MAX_DEPTH * tf.cast(side, tf.float32), tf.int32) for side in (height, width))
    lines = [pixels[down], pixels[-1 - down], pixels[:, right], pixels[:, -1 - right]]
    is_drawn = (paper_share(paper) > DRAWN_MIN_PAPER) & tf.reduce_all(
        [share(tf.cast(line, tf.int32), paper, EXACT_COLOUR_LEVELS) > LINE_MIN_PAPER for line in lines]
    )
    has_ink = share(rim, paper, INK_COLOUR_LEVELS) < 1

    def extended() -> tf.Tensor:
        room, colour = tf.reduce_max(tf.shape(pixels)) // ROOM, tf.cast(paper, tf.uint8)
        # In uint8 both operations are modulo 256, so the difference is undone exactly.
        return tf.pad(pixels - colour, [[room, room], [room, room], [0, 0]]) + colour

    return tf.cond((is_even | is_drawn) & has_ink, extended, lambda: pixels), is_drawn & has_ink
