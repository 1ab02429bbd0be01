"""Find the axis in colour space that separates ink from paper, and measure how dark each pixel is along it.

All images here are the reduced picture, h x w. Greys, light and ink are in 0 to 1.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from trainer.pictures.filters import contraharmonic_mean, gaussian_blur, nth_smallest
from trainer.pictures.morphology import ruled_lines

BACKGROUND_SIGMAS = 2.0, 16.0
"""Blur, in pixels, that gives the background a pixel is compared with. A thin pen stands out from the first even in uneven
light; a thick pen stands out only from the second."""

SAMPLE_ROW_STEP = 2
"""Step between the rows that are compared with the background. Half of the rows give the same accuracy on photographs."""

THIN_PEN_MIN_SKEWNESS = 1.0
"""Differences from the near background are at least this skewed where a thin pen wrote. Noise is not skewed."""

RIM_WEIGHT = 0.5
"""Weight of the rim, beside the skewness, in the decision which end of the axis is paper."""

PAPER_QUANTILES = 12, 3
"""Paper is measured at the quantiles 1/12 and 1/3 of the ink values, since at least a third of a picture is paper. Their
distance is the noise of the paper."""

PAPER_LEVEL_NOISES = 0.4
"""How many noises above the second of `PAPER_QUANTILES` the middle of the paper's values lies."""

STRENGTH_NOISES = 3
"""Values within so many noises of the paper do not count when the strength of ink is measured."""

INK_MIN_NOISES = 4
"""Ink is this many noises darker than paper at least."""

INK_MIN_STRENGTH = 0.4
"""Ink has this share of the usual ink's strength at least."""

SHADOW_MIN_STRENGTH = 0.65
"""The same where a corner of the picture is dark and the window is wide: the corner then holds a shadow, most likely."""

CORNER_PIXELS = 4
"""Side of the square that is a corner of the reduced picture."""

PICTURE_MIN_STRENGTH = 0.04
"""Weaker ink than this is no ink: 10 of 255 grey levels."""

PICTURE_MIN_NOISES = 6
"""Ink weaker than this many noises is no ink."""

RULE_MIN_NOISES, RULE_MIN_STRENGTH = 3, 0.2
"""Ruled lines are searched among what is darker than paper by these, since they are fainter than ink."""

LIGHT_RANGE = 0.3, 3.0
"""Light is clipped to these multiples of its mean."""


class Ink(NamedTuple):
    """How much darker than the paper each pixel is."""

    values: tf.Tensor
    """float32 [h, w]; 0 is paper."""
    noise: tf.Tensor
    """float32: how far the values of paper spread."""
    strength: tf.Tensor
    """float32: value of the usual ink."""
    light: tf.Tensor
    """float32 [h, w]: brightness of the light on the paper, around 1."""
    paper: tf.Tensor
    """float32 [h, w]: grey of the paper, also where there is ink."""


def principal_axis(differences: tf.Tensor) -> tf.Tensor:
    """Return the direction, float32 [3] of length one, of colour differences float32 [3, n]; large ones count most.

    It is the first eigenvector of their weighted covariance, by power iteration.
    """
    weights = tf.reduce_sum(differences**2, axis=0)
    covariance = tf.matmul(differences * weights, differences, transpose_b=True)
    power = covariance / (tf.linalg.trace(covariance) + 1e-20)
    for _ in range(4):  # squared four times: the 16th power
        power = power @ power
        power = power / (tf.linalg.trace(power) + 1e-20)
    # Nearly grey, and not exactly orthogonal to any axis of two equal colours.
    axis = tf.linalg.matvec(power, tf.constant([0.57, 0.58, 0.58]))
    longest_row = tf.gather(power, tf.argmax(tf.linalg.diag_part(power)))
    axis = tf.where(tf.norm(axis) > 0.1 * tf.norm(longest_row), axis, longest_row)
    return tf.where(tf.norm(axis) > 1e-6, axis / (tf.norm(axis) + 1e-12), tf.constant([0.577, 0.577, 0.577]))


def find_ink_axis(rgb: tf.Tensor, rim_is_paper: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Find the direction in colour space from ink to paper.

    Args:
        rgb: float32 [3, h, w].
        rim_is_paper: bool; else it is unknown what the rim shows.

    Returns:
        The axis, float32 [3] (RGB times it is a grey in which ink is darker than paper), and whether the pen is thin.
    """
    rows = tf.range(0, tf.shape(rgb)[1], SAMPLE_ROW_STEP)
    sample = tf.gather(rgb, rows, axis=1)
    near, far = (_axis_against_background(sample, gaussian_blur(rgb, sigma, rows)) for sigma in BACKGROUND_SIGMAS)
    is_thin = tf.abs(near[1]) > tf.maximum(THIN_PEN_MIN_SKEWNESS, tf.abs(far[1]))
    axis, skewness = tf.cond(is_thin, lambda: near, lambda: far)
    return _towards_paper(rgb, axis, tf.where(rim_is_paper, 0.0, skewness)), is_thin


def _axis_against_background(rgb: tf.Tensor, background: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the axis along which colours float32 [3, h, w] differ from their background, and the skewness along it."""
    differences = rgb - background
    axis = principal_axis(tf.reshape(differences, [3, -1]))
    along = tf.tensordot(axis, differences, 1)
    squares = along**2
    return axis, tf.reduce_mean(squares * along) / (tf.reduce_mean(squares) ** 1.5 + 1e-9)


def _towards_paper(rgb: tf.Tensor, axis: tf.Tensor, skewness: tf.Tensor) -> tf.Tensor:
    """Return the axis or its opposite, so that it points to paper.

    Ink covers less than paper does, so the differences are skewed towards ink. The rim of a picture is paper more often
    than not.
    """
    grey = tf.tensordot(axis, rgb, 1)
    rim_excess = (tf.reduce_mean(rim(grey)) - tf.reduce_mean(grey)) / (tf.math.reduce_std(grey) + 1e-6)
    return tf.where(skewness - RIM_WEIGHT * rim_excess > 0, -axis, axis)


def rim(values: tf.Tensor) -> tf.Tensor:
    """Return the outermost rows and columns of [h, w], as [n]."""
    return tf.concat([values[0], values[-1], values[:, 0], values[:, -1]], axis=0)


def measure_ink(grey: tf.Tensor, axis: tf.Tensor, paper: tf.Tensor, min_strength: tf.Tensor) -> Ink:
    """Measure how much darker than the paper each pixel is.

    Args:
        grey: float32 [h, w].
        axis: float32 [3], the ink axis that gave the grey.
        paper: float32 [h, w], the grey after closing.
        min_strength: the strength of ink is not measured below this.
    """
    light = _illumination(paper, axis)
    values = (paper - grey) / light
    sample = tf.reshape(values[::2, ::2], [-1])  # a quarter of the pixels is enough
    low, high = (nth_smallest(sample, tf.size(sample) // part) for part in PAPER_QUANTILES)
    noise = high - low
    paper_level = high + PAPER_LEVEL_NOISES * noise
    values, paper = values - paper_level, paper - paper_level * light
    margin = STRENGTH_NOISES * noise
    strength = contraharmonic_mean(tf.nn.relu(values - margin)) + margin
    return Ink(values, noise, tf.maximum(strength, min_strength), light, paper)


def ink_mask(ink: Ink, *, may_hold_shadow: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
    """Tell which pixels are ink.

    Args:
        ink: how dark each pixel is.
        may_hold_shadow: bool; a dark corner is then a shadow.
        room: int32 [2], rows and columns on each side that the picture was extended by; ruled lines end there.

    Returns:
        bool [h, w], without ruled lines; all false where the ink is too weak to be told from noise.
    """
    dark = ink.values > INK_MIN_STRENGTH * ink.strength
    corner = CORNER_PIXELS
    corners = [dark[:corner, :corner], dark[:corner, -corner:], dark[-corner:, :corner], dark[-corner:, -corner:]]
    in_corner = tf.reduce_any(tf.stack(corners))
    share = tf.where(in_corner & may_hold_shadow, SHADOW_MIN_STRENGTH, INK_MIN_STRENGTH)
    mask = ink.values > tf.maximum(INK_MIN_NOISES * ink.noise, share * ink.strength)
    is_visible = (ink.strength > PICTURE_MIN_STRENGTH) & (ink.strength > PICTURE_MIN_NOISES * ink.noise)
    faint = ink.values > tf.maximum(RULE_MIN_NOISES * ink.noise, RULE_MIN_STRENGTH * ink.strength)
    height, width = tf.unstack(tf.shape(faint))
    lines = ruled_lines(faint[room[0] : height - room[0], room[1] : width - room[1]])
    return mask & ~tf.pad(lines, tf.stack([room, room], axis=1)) & is_visible


def mean_shade(ink: Ink, mask: tf.Tensor) -> tf.Tensor:
    """Return the mean darkness, in strengths of ink, of what is darker than paper and not ink."""
    values = tf.clip_by_value((ink.values - STRENGTH_NOISES * ink.noise) / ink.strength, 0, INK_MIN_STRENGTH)
    return tf.reduce_mean(tf.where(mask, 0.0, values))


def _illumination(paper: tf.Tensor, axis: tf.Tensor) -> tf.Tensor:
    """float32 [h, w]: brightness of the light on the paper, around 1. A shadow dims the ink in it as well.

    Where ink and paper differ in hue alone, the grey says nothing about the light, and the result is 1. The offset of 0.5
    keeps black paper from doing so too.
    """
    bright = tf.abs(paper) + 0.5
    weight = tf.nn.relu(tf.reduce_sum(axis)) / math.sqrt(3)  # 1 where the axis is grey
    return tf.clip_by_value(1 + weight * (bright / tf.reduce_mean(bright) - 1), *LIGHT_RANGE)
