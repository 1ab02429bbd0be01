"""Where in a picture the digit is: the first half of its preparation, on the picture reduced to `LOOK` pixels.

picture -> paper, ink, its colour and which of the two is darker -> pieces of ink -> which of them are the digit

If what is found is solid, it is the sheet on which the digit is written, lying on something else: look again, within it.
"""

import math
from functools import partial
from typing import NamedTuple

import tensorflow as tf

from trainer.pictures.components import connected_components
from trainer.pictures.filters import blur, bounds, close, contraharmonic, main_axis, widest
from trainer.pictures.ruling import ruling

LOOK = 128, 256
"""Longer side of the reduced picture in which the digit is looked for: an eighth of the picture's, between these two.
A thin pen on a page that was photographed whole is lost in the smaller."""

SURROUNDINGS = 2.0, 16.0
"""Reach, in the reduced picture, of what a pixel is compared with: a thin pen shows against the first even where the light
is uneven, a thick pen only against the second."""

WINDOWS = 7, 21, 55, 101
"""Ink is nowhere as wide as one of these, in the reduced picture: the first leaves most shadows out, the last lets the
widest pens in."""

PREFERENCE = 1.2
"""How many times better a wider window has to be; where it is not, still wider ones are not tried."""

FRAMED = 0.2
"""How much darker than the middle of the brightnesses the rim of a picture is where there is more than paper in it."""

SHEET = 0.2
"""Shorter side of a sheet of paper at least, of the picture's longer side."""

SOLID = 21
"""A sheet brought to 32x32 pixels has a square of so many without a gap; no digit is so solid."""


class Look(NamedTuple):
    """What the reduced picture, h x w, showed."""

    score: tf.Tensor
    """How much like a digit the best pieces of ink are: float32; 0 where there is no ink."""
    axis: tf.Tensor
    """float32 [3]: RGB times this is a grey in which ink is darker than paper."""
    light: tf.Tensor
    """float32 [h, w]: brightness of the light, around 1."""
    paper: tf.Tensor
    """float32 [h, w]: that grey of the paper, also where there is ink."""
    digit: tf.Tensor
    """bool [h, w]: the pieces of ink that are the digit."""


def find_digit(pixels: tf.Tensor) -> tuple[tf.Tensor, Look]:
    """Look for the digit in a picture uint8 [H, W, 3]; where a sheet of paper lies in it, on the sheet.

    Returns:
        The part of the picture that was looked at, and what it showed.
    """

    def closer(
        _: tf.Tensor, part: tf.Tensor, looked: tf.Tensor, look: Look
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, Look]:
        inner, sheet = _look(part)
        # The first look counts in any case; on a sheet the digit lies within it, or it was a thick digit's own part.
        keep = (tf.size(looked) == 0) | ((inner.score > 0) & ~tf.reduce_any(_rim(inner.digit)))
        looked, look = tf.cond(keep, lambda: (part, inner), lambda: (looked, look))
        sheet = part[sheet[0] : sheet[1], sheet[2] : sheet[3]]
        return keep & (tf.size(sheet) > 0), sheet, looked, look

    scalar, axis, image, picture = (tf.TensorShape(shape) for shape in ([], [3], [None] * 2, [None, None, 3]))
    _, _, looked, look = tf.while_loop(
        lambda more, *_: more,
        closer,
        (tf.constant(True), pixels, pixels[:0], _nothing([0, 0])),
        shape_invariants=(scalar, picture, picture, Look(scalar, axis, image, image, image)),
        maximum_iterations=3,
    )
    return looked, look


def _look(pixels: tf.Tensor) -> tuple[Look, tf.Tensor]:
    """What a picture shows, and where in it lies a sheet, as int32 [4]: top, bottom, left, right; zeros for none."""
    full = tf.cast(tf.shape(pixels)[:2], tf.float32)
    longer = tf.reduce_max(full)
    size = tf.maximum(tf.cast(tf.round(full * (tf.clip_by_value(longer / 8, *LOOK) / longer)), tf.int32), 8)
    rgb = tf.image.resize(pixels[tf.newaxis], size, method="area")[0] / 255
    rgb = blur(tf.transpose(rgb, [2, 0, 1]), 0.8)
    thin, thick = (_leaning(rgb, sigma) for sigma in SURROUNDINGS)
    is_thin = tf.abs(thin[1]) > tf.maximum(1.0, tf.abs(thick[1]))
    axis = _towards_paper(rgb, *tf.cond(is_thin, lambda: thin, lambda: thick))
    grey = tf.tensordot(axis, rgb, 1)
    look = _widening(grey, axis, tf.where(is_thin, 0, 1), is_thin)
    framed = _median(grey[::4, ::4]) - _median(_rim(grey)) > FRAMED
    last = tf.constant(len(WINDOWS) - 1)
    behind = tf.cond(framed, lambda: _widening(-grey, -axis, last, tf.constant(False)).digit, lambda: look.digit)
    return look, tf.cast(tf.round(_sheet(behind, grey) * tf.repeat(full / tf.cast(size, tf.float32), 2)), tf.int32)


def _widening(grey: tf.Tensor, axis: tf.Tensor, first: tf.Tensor, crisp: tf.Tensor) -> Look:
    """The digit among what is nowhere as wide as a window; from the first on, as long as a wider one shows it better."""

    def wider(k: tf.Tensor, best: Look, least: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, Look, tf.Tensor, tf.Tensor]:
        paper = tf.switch_case(k, [partial(close, grey, window) for window in WINDOWS])
        look, strength = _pieces(grey, axis, paper, least, crisp=crisp, wide=k > first)
        better = look.score > PREFERENCE * best.score
        best = tf.cond(better, lambda: look, lambda: best)
        return k + 1, best, tf.where(least > 0, least, strength), better & (k + 1 < len(WINDOWS))

    start = first, _nothing(tf.shape(grey)), 0.0, True
    return tf.while_loop(lambda *state: state[-1], wider, start)[1]


def _nothing(size: tf.Tensor) -> Look:
    """Worse than whatever a look may show."""
    empty = tf.zeros(size)
    return Look(tf.constant(-1.0), tf.zeros([3]), empty, empty, empty > 0)


def _rim(values: tf.Tensor) -> tf.Tensor:
    return tf.concat([values[0], values[-1], values[:, 0], values[:, -1]], axis=0)


def _median(values: tf.Tensor) -> tf.Tensor:
    return tf.sort(tf.reshape(values, [-1]))[tf.size(values) // 2]


def _sheet(piece: tf.Tensor, grey: tf.Tensor) -> tf.Tensor:
    """float32 [4], top, bottom, left, right of what lies within a sheet bool [h, w]; zeros if the piece is none.

    A sheet is solid and, but for what is written on it, of one grey.
    """

    def within() -> tf.Tensor:
        top, bottom, left, right = bounds(piece)
        shorter, longer = tf.minimum(bottom - top, right - left), tf.maximum(bottom - top, right - left)
        first, last = tf.cast(tf.stack([top, left]), tf.int32), tf.cast(tf.stack([bottom, right]), tf.int32)
        box = tf.cast(piece[first[0] : last[0], first[1] : last[1]], tf.float32)
        box = tf.image.resize(box[tf.newaxis, ..., tf.newaxis], [32, 32], method="area")[0, ..., 0]
        solid = (tf.reduce_max(-widest(-box, SOLID)) > 0.5) & (tf.reduce_mean(box) > 0.6)
        large = shorter > tf.maximum(SHEET * tf.cast(tf.reduce_max(tf.shape(grey)), tf.float32), 0.45 * longer)
        margin = 0.06 * shorter
        inside = tf.stack([top + margin, bottom - margin, left + margin, right - margin])
        return tf.cond(solid & large, lambda: tf.where(is_even(), inside, 0.0), lambda: tf.zeros([4]))

    def is_even() -> tf.Tensor:
        on, off = tf.boolean_mask(grey, piece), tf.boolean_mask(grey, ~piece)
        contrast = tf.abs(_median(on) - _median(off))
        return tf.reduce_mean(tf.cast(tf.abs(on - _median(on)) < 0.2 * contrast, tf.float32)) > 0.75

    return tf.cond(tf.reduce_any(piece) & ~tf.reduce_all(piece), within, lambda: tf.zeros([4]))


def _towards_paper(rgb: tf.Tensor, axis: tf.Tensor, lean: tf.Tensor) -> tf.Tensor:
    """The axis or its opposite, for colours float32 [3, h, w].

    Ink is rarer than its surroundings, so that the differences lean to its side; the rim of a picture is more often paper
    than not.
    """
    grey = tf.tensordot(axis, rgb, 1)
    rim = _rim(grey)
    side = (tf.reduce_mean(rim) - tf.reduce_mean(grey)) / (tf.math.reduce_std(grey) + 1e-6)
    return tf.where(lean - 0.5 * side > 0, -axis, axis)


def _leaning(rgb: tf.Tensor, sigma: float) -> tuple[tf.Tensor, tf.Tensor]:
    """The axis along which colours float32 [3, h, w] differ from their surroundings, and the skewness along it."""
    differences = rgb - blur(rgb, sigma)
    axis = main_axis(tf.reshape(differences, [3, -1]))
    along = tf.tensordot(axis, differences, 1)
    return axis, tf.reduce_mean(along**3) / (tf.reduce_mean(along**2) ** 1.5 + 1e-9)


def _pieces(
    grey: tf.Tensor, axis: tf.Tensor, paper: tf.Tensor, least: tf.Tensor, *, crisp: tf.Tensor, wide: tf.Tensor
) -> tuple[Look, tf.Tensor]:
    """The digit among what is darker than the paper, and the strength of ink.

    Args:
        grey: float32 [h, w].
        axis: float32 [3], which made it of the colours.
        paper: float32 [h, w], the grey closed.
        least: that ink is no weaker than.
        crisp: whether the digit's edges must be sharp.
        wide: whether the window was so wide that shadows may be taken for ink.
    """
    light = _light(paper, axis)
    ink = (paper - grey) / light
    # The third of the picture that is most like paper is paper; noise spreads it.
    values = tf.sort(tf.reshape(ink[::2, ::2], [-1]))
    low, high = values[tf.size(values) // 12], values[tf.size(values) // 3]
    noise = high - low
    usual = high + 0.4 * noise
    ink, paper = ink - usual, paper - usual * light
    strength = contraharmonic(tf.nn.relu(ink - 3 * noise)) + 3 * noise
    strength = tf.maximum(strength, least)
    dark = ink > 0.4 * strength
    in_corner = tf.reduce_any(tf.stack([dark[:4, :4], dark[:4, -4:], dark[-4:, :4], dark[-4:, -4:]]))
    share = tf.where(in_corner & wide, 0.65, 0.4)  # a shadow, most likely: ink is darker
    inked = ink > tf.maximum(4 * noise, share * strength)
    found = (strength > 0.04) & (strength > 6 * noise) & tf.reduce_any(inked)
    inked = inked & ~ruling(ink > tf.maximum(3 * noise, 0.2 * strength))
    score, digit = tf.cond(
        found & tf.reduce_any(inked), lambda: _digit(inked, ink), lambda: (0.0, tf.zeros_like(inked))
    )
    # Uneven light that this window does not follow is neither paper nor ink.
    between = tf.clip_by_value((ink - 3 * noise) / strength, 0, 0.4)
    score *= tf.exp(-20 * tf.reduce_mean(tf.where(inked, 0.0, between)))
    score *= tf.cond(crisp, lambda: _sharpness(digit, ink) ** 8, lambda: 1.0)
    return Look(score, axis, light, paper, digit), strength


def _sharpness(digit: tf.Tensor, ink: tf.Tensor) -> tf.Tensor:
    """How abruptly ink begins along the edges of the digit, 0 to 1; beside a thin pen the edge of a shadow fades."""
    inside = tf.cast(digit, tf.float32)
    edge = inside + widest(-inside, 3)  # its outermost pixels
    step = widest(ink, 5) + widest(-ink, 5)
    strength = tf.math.divide_no_nan(tf.reduce_sum(inside * ink), tf.reduce_sum(inside))
    share = tf.clip_by_value(tf.math.divide_no_nan(step, strength), 0, 1)
    return tf.math.divide_no_nan(tf.reduce_sum(edge * share), tf.reduce_sum(edge))


def _light(paper: tf.Tensor, axis: tf.Tensor) -> tf.Tensor:
    """float32 [h, w]: how bright the light on the paper is, around 1; shadows dim the ink that lies in them.

    Where ink and paper differ in hue alone, the grey that parts them says nothing of the light; nor does black paper.
    """
    bright = tf.abs(paper) + 0.5
    says = tf.nn.relu(tf.reduce_sum(axis)) / math.sqrt(3)
    return tf.clip_by_value(1 + says * (bright / tf.reduce_mean(bright) - 1), 0.3, 3.0)


def _digit(inked: tf.Tensor, ink: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of the pieces in `inked`, those that are the digit, bool [h, w], and how much like one the first of them is."""
    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(inked)))
    thick = widest(tf.cast(inked, tf.float32), 3) > 0
    where = tf.where(thick)
    labels, count = connected_components(thick, where)
    y, x = tf.unstack(tf.cast(where, tf.float32), axis=1)

    def total(values: tf.Tensor) -> tf.Tensor:
        return tf.math.unsorted_segment_sum(values, labels, count)

    def lowest(values: tf.Tensor) -> tf.Tensor:
        return tf.math.unsorted_segment_min(values, labels, count)

    mass = total(tf.gather_nd(tf.where(inked, ink, 0.0), where))
    top, left, bottom, right = lowest(y), lowest(x), 1 - lowest(-y), 1 - lowest(-x)
    longer = tf.maximum(bottom - top, right - left)
    at_rim = total(tf.cast((y == 0) | (x == 0) | (y == height - 1) | (x == width - 1), tf.float32)) / longer
    # A shadow that comes in from the rim nearly always holds a corner; a digit that fills the picture does not.
    from_corner = tf.minimum(y, height - 1 - y) + tf.minimum(x, width - 1 - x)
    in_corner = lowest(from_corner) < 4
    off_centre = tf.maximum(tf.abs((top + bottom) / height - 1), tf.abs((left + right) / width - 1))
    score = mass * (1 - 0.5 * off_centre) / (1 + (tf.where(in_corner, 1.6, 1.1) * at_rim) ** 6)
    # A box drawn around the digit: all of it along its own bounds, and something inside.
    to_side = tf.reduce_min(
        [y - tf.gather(top, labels), x - tf.gather(left, labels),
         tf.gather(bottom, labels) - 1 - y, tf.gather(right, labels) - 1 - x], axis=0
    )  # fmt: skip
    along_sides = total(tf.cast(to_side < 0.1 * tf.gather(longer, labels), tf.float32)) / total(tf.ones_like(y))
    box = along_sides > 0.9

    def within(outer: tf.Tensor) -> tf.Tensor:
        return (top > top[outer]) & (left > left[outer]) & (bottom < bottom[outer]) & (right < right[outer])

    first = tf.argmax(score)
    enclosed = tf.where(box[first] & within(first) & (mass > 0.05 * mass[first]), score, 0.0)
    first = tf.cond(tf.reduce_max(enclosed) > 0, lambda: tf.argmax(enclosed), lambda: first)
    around = box & (top < top[first]) & (left < left[first]) & (bottom > bottom[first]) & (right > right[first])
    gap_y = tf.maximum(top - bottom[first], top[first] - bottom)
    gap_x = tf.maximum(left - right[first], left[first] - right)
    near = tf.maximum(gap_y, gap_x) < 0.15 * longer[first]
    belongs = near & (mass > 0.05 * mass[first]) & (at_rim < 0.5) & ~around
    belongs = belongs | (tf.range(count, dtype=tf.int64) == first)
    return score[first], tf.scatter_nd(where, tf.gather(belongs, labels), tf.shape(inked, tf.int64))
