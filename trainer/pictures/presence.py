"""Estimate from the ink whether a picture has no digit, one or several, and whether its image shows what is written.

Blank paper, shadows, textures, print and faces have ink somewhere, and the network for digits is often sure of what it is
given. A digit differs in shape and surroundings: sharp edges, one or two pieces, little other ink around it, none inside.
A small network weighs these. The image itself may show the edge of a shadow, or only a part of the digit: a logistic
regression on the same traits and on the image's greys tells how doubtful it is. `python -m testbed.presence` trains both
on rendered pictures and writes their weights here.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from trainer.pictures.components import Counts
from trainer.pictures.ink import rim
from trainer.pictures.locate import Located, sharpness
from trainer.pictures.morphology import dilate, erode, stroke_width

WEIGHTS_FILE = Path(__file__).with_name("presence.npz")
"""Two layers: `first` float32 [features, hidden], `first_bias`, `second` float32 [hidden, 3], `second_bias`. The logistic
regression: `doubt` float32 [`TRAITS` + greys], `doubt_bias`."""

IMAGE_POOL = 2
"""The network gets the digit's image in half of its resolution."""

NONE, ONE, SEVERAL = range(3)
"""What the network tells apart."""

MIN_PROBABILITY = 0.9
"""Of none, and of several, from which on the network is believed. Fewer than 0.5 % of photographs of one digit are then
counted wrong."""


class Traits(NamedTuple):
    """How the ink of a located digit lies; each is a float32. Lengths are in pixels of the reduced picture."""

    other_ink: tf.Tensor
    """Share of the ink that is neither the digit's nor its neighbours'."""
    shade: tf.Tensor
    """Mean of what is neither paper nor ink."""
    inner: tf.Tensor
    """Components within the digit's bounding box, such as the eyes of a face."""
    pieces: tf.Tensor
    """Components that form the digit."""
    strays: tf.Tensor
    """Other components that are neither neighbours nor specks."""
    neighbours: tf.Tensor
    """Components beside it that are digits themselves."""
    aspect: tf.Tensor
    """Width over height."""
    fill: tf.Tensor
    """Share of the bounding box that is ink."""
    stroke: tf.Tensor
    """Width of the strokes over the longer side."""
    noise: tf.Tensor
    """Noise of the paper over the strength of the ink."""
    sharpness: tf.Tensor
    """How abruptly the edges begin."""
    at_rim: tf.Tensor
    """1 if the digit touches the rim of the picture."""
    strength: tf.Tensor
    """How dark the ink is."""
    width: tf.Tensor
    """Share of the picture's width."""
    height: tf.Tensor
    """Share of the picture's height."""
    inked: tf.Tensor
    """Share of the picture that is ink."""


TRAITS = len(Traits._fields)


def measure_traits(located: Located) -> tf.Tensor:
    """Measure how the ink of a located digit of at least one pixel lies: float32 [`TRAITS`], in the order of `Traits`."""
    ink, mask, chosen = located.ink, located.mask, located.chosen
    top, left, bottom, right = tf.unstack(chosen.box)
    counts = Counts(*tf.unstack(chosen.counts))
    height, width = bottom - top, right - left
    rows, columns = tf.unstack(tf.cast(tf.shape(mask), tf.float32))
    inked = tf.cast(chosen.digit & mask, tf.float32)
    return tf.stack(
        Traits(
            other_ink=chosen.other_ink,
            shade=located.shade,
            inner=counts.inner,
            pieces=counts.pieces,
            strays=counts.strays,
            neighbours=counts.neighbours,
            aspect=width / height,
            fill=tf.reduce_sum(inked) / (width * height),
            stroke=stroke_width(inked) / tf.maximum(width, height),
            noise=ink.noise / ink.strength,
            sharpness=sharpness(chosen.digit, ink.values),
            at_rim=tf.cast(tf.reduce_any(rim(chosen.digit)), tf.float32),
            strength=ink.strength,
            width=width / columns,
            height=height / rows,
            inked=tf.reduce_mean(tf.cast(mask, tf.float32)),
        )
    )


def features(images: tf.Tensor, traits: tf.Tensor) -> tf.Tensor:
    """Return what the network gets, float32 [N, features]: traits without extremes, then pixels, all around 0 to 3.

    Args:
        images: uint8 [N, 28, 28], 0 = paper, 255 = ink.
        traits: float32 [N, `TRAITS`].
    """
    rows, columns = (side // IMAGE_POOL for side in IMAGE_SHAPE)
    blocks = tf.reshape(tf.cast(images, tf.float32) / 255, [-1, rows, IMAGE_POOL, columns, IMAGE_POOL])
    pixels = tf.reshape(tf.reduce_mean(blocks, axis=[2, 4]), [-1, rows * columns])
    return tf.concat([_scaled(traits), pixels], axis=1)


def doubt_features(images: tf.Tensor, traits: tf.Tensor) -> tf.Tensor:
    """Return what the logistic regression gets, float32 [N, features]: traits without extremes, then the image's greys.

    A pen's ink is full, grey at its edges only. A shadow is grey throughout, or a wide solid area.

    Args:
        images: uint8 [N, 28, 28], 0 = paper, 255 = ink.
        traits: float32 [N, `TRAITS`].
    """
    ink = tf.cast(images, tf.float32) / 255

    def share(pixels: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.cast(pixels, tf.float32), axis=[1, 2])

    highest, lowest = dilate(ink, 3), erode(ink, 3)
    inked, grey = share(ink > 0.2), share((ink > 0.2) & (ink < 0.8))
    flat = share((lowest > 0.1) & (highest < 0.9))  # grey with all neighbours
    solid = share(erode(ink, 5) > 0.5)  # wider than a stroke
    pixels = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]
    greys = [
        inked,
        grey,
        grey / (inked + 1e-6),
        flat,
        tf.math.log1p(pixels * flat),
        solid,
        tf.math.log1p(pixels * solid),
        tf.reduce_mean(ink, axis=[1, 2]),
        share(highest > 0.95),
    ]
    return tf.concat([_scaled(traits), tf.stack(greys, axis=1)], axis=1)


def _scaled(traits: tf.Tensor) -> tf.Tensor:
    """Return float32 [N, `TRAITS`]: traits without extremes, around 0 to 3."""
    given = Traits(*tf.unstack(traits, axis=1))

    def count(values: tf.Tensor, most: int) -> tf.Tensor:
        return tf.math.log1p(tf.clip_by_value(values, 0, most))

    scaled = Traits(
        other_ink=3 * tf.minimum(given.other_ink, 0.6),
        shade=20 * tf.minimum(given.shade, 0.1),
        inner=count(given.inner, 10),
        pieces=count(given.pieces - 1, 10),
        strays=count(given.strays, 20),
        neighbours=count(given.neighbours, 10),
        aspect=tf.math.log(tf.clip_by_value(given.aspect, 0.1, 10)),
        fill=2 * given.fill,
        stroke=5 * tf.minimum(given.stroke, 0.6),
        noise=10 * tf.minimum(given.noise, 0.2),
        sharpness=3 * given.sharpness,
        at_rim=given.at_rim,
        strength=tf.math.log(tf.clip_by_value(given.strength, 0.03, 1)),
        width=given.width,
        height=given.height,
        inked=3 * tf.minimum(given.inked, 0.6),
    )
    return tf.stack(scaled, axis=1)


def preparation_doubt(images: tf.Tensor, traits: tf.Tensor) -> tf.Tensor:
    """Return how probable it is that an image does not show the digit that is written, or only a part: float32 [N].

    Args:
        images: uint8 [N, 28, 28], what was located, in MNIST's form.
        traits: float32 [N, `TRAITS`], how it lies in the picture.
    """
    weights = _weights()
    return tf.sigmoid(tf.linalg.matvec(doubt_features(images, traits), weights["doubt"]) + weights["doubt_bias"])


def count_digits(images: tf.Tensor, traits: tf.Tensor) -> tf.Tensor:
    """Count the digits of pictures in which one was located: int64 [N], 0 for none, 2 for two or more that touch.

    Args:
        images: uint8 [N, 28, 28], what was located, in MNIST's form.
        traits: float32 [N, `TRAITS`], how it lies in the picture.
    """
    weights = _weights()
    hidden = tf.nn.relu(features(images, traits) @ weights["first"] + weights["first_bias"])
    kinds = tf.nn.softmax(hidden @ weights["second"] + weights["second_bias"])
    beside = tf.cast(Traits(*tf.unstack(traits, axis=1)).neighbours, tf.int64)
    several = tf.where(kinds[:, SEVERAL] > MIN_PROBABILITY, tf.maximum(beside, 1), beside)
    is_none = (kinds[:, NONE] > MIN_PROBABILITY) | ~tf.reduce_any(images > 0, [1, 2])
    return tf.where(is_none, tf.constant(0, tf.int64), 1 + several)


@cache
def _weights() -> dict[str, np.ndarray]:
    with np.load(WEIGHTS_FILE) as arrays:
        return dict(arrays)
