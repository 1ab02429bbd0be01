"""Locate the digit in a picture: the first half of its preparation, on the picture reduced to 128 to 256 pixels.

    reduced picture -> ink axis -> paper and ink (ink.py) -> connected components -> the digit's (components.py)

If the located mask is solid, it is a sheet of paper that lies on something else: locate again, within the sheet.

Numbers in this package that name no other source were chosen on rendered photographs of training digits and on scenes
(testbed/), with seeds that the benchmark does not score.
"""

from functools import partial
from typing import NamedTuple

import tensorflow as tf

from trainer.pictures.components import Chosen, Counts, choose_digit, choose_nothing
from trainer.pictures.extend import Extended
from trainer.pictures.filters import BLUR_MAX_SIDE, gaussian_blur, median, split_channels
from trainer.pictures.ink import Ink, find_ink_axis, ink_mask, mean_shade, measure_ink, rim
from trainer.pictures.morphology import closing, contrast, erode

REDUCTION = 8
"""The reduced picture is so many times smaller than the picture, within `LOCATE_SIDE_PIXELS`."""

LOCATE_SIDE_PIXELS = 128, BLUR_MAX_SIDE
"""Least and greatest longer side of the reduced picture. Below the first a thin pen on a whole page would be lost."""

MIN_SIDE_PIXELS = 8
"""Least shorter side of the reduced picture."""

NOISE_SIGMA = 0.8
"""Blur, in pixels of the reduced picture, against noise and JPEG's rings."""

CLOSING_WINDOWS = 7, 21, 55, 101
"""Widths in pixels that ink stays below. The first leaves most shadows out; the last lets the widest pens in."""

WIDER_WINDOW_GAIN = 1.2
"""How many times higher the score with a wider window has to be. If it is not, still wider ones are not tried."""

WIDER_WINDOW_LOSS = 0.98
"""A wider window is preferred if it keeps at least this share of the best score."""

MAX_PASSES = 3
"""The picture, a sheet within it, a sheet within that (a note on a page on a desk)."""

FRAME_CONTRAST = 0.2
"""The rim is darker than the median of a picture by this where the paper lies on a dark table."""

SHEET_GRID, SHEET_MIN_SOLID = 32, 21
"""A sheet that is resized to 32x32 pixels holds a solid square of 21x21; no digit does."""

SHEET_MIN_FILL = 0.6
"""Share of its bounding box that a sheet fills. A square turned by 30 degrees fills 0.54, and is not recognised."""

SHEET_MIN_SIDE, SHEET_MIN_ASPECT = 0.2, 0.45
"""Shorter side of a sheet at least: of the picture's longer side, and of its own longer side. A strip is no sheet."""

SHEET_MIN_PIXELS = 32
"""Shorter side of the inside of a sheet at least, in pixels of the picture. A thick stroke is smaller."""

SHEET_MARGIN = 0.06
"""Share of its shorter side that is cut from each side of a sheet, since its edges are askew."""

SHEET_TOLERANCE, SHEET_MIN_EVEN = 0.2, 0.75
"""At least 0.75 of a sheet's pixels differ from its median by less than 0.2 of its contrast to its surroundings."""

SHADOW_PENALTY = 20
"""Decay of the score with the mean of what is neither paper nor ink: uneven light that the window does not follow."""

SHARPNESS_EXPONENT = 8
"""A thin pen's score is multiplied by this power of its edges' sharpness, so that the soft edge of a shadow scores low."""


class Located(NamedTuple):
    """What was located in the reduced picture, h x w."""

    score: tf.Tensor
    """How much like a digit the best component of ink is: float32; 0 where there is no ink."""
    axis: tf.Tensor
    """float32 [3]: RGB times this is a grey in which ink is darker than paper."""
    ink: Ink
    """How dark each pixel is."""
    mask: tf.Tensor
    """bool [h, w]: the pixels that are ink."""
    shade: tf.Tensor
    """float32: mean darkness of the pixels that are neither paper nor ink, in strengths of ink."""
    chosen: Chosen
    """Which components of the ink are the digit, and how the others lie around it."""

    @property
    def digit(self) -> tf.Tensor:
        """bool [h, w]: the digit's pixels."""
        return self.chosen.digit


class Part(NamedTuple):
    """The part of a picture that was searched."""

    pixels: tf.Tensor
    """uint8 [H, W, 3]."""
    origin: tf.Tensor
    """int32 [2]: row and column of its first pixel in the picture."""


def locate_digit(picture: Extended) -> tuple[Part, Located]:
    """Locate the digit in a picture; where a sheet of paper lies in it, on the sheet.

    Returns:
        The part of the picture that was searched, and what was located in it.
    """

    def search(_: tf.Tensor, part: Part, best_part: Part, best: Located) -> tuple[tf.Tensor, Part, Part, Located]:
        is_first = tf.size(best_part.pixels) == 0
        located, sheet = _locate_in(Extended(part.pixels, tf.where(is_first, picture.room, 0), picture.is_drawing))
        # The first pass counts in any case. Later, ink at the rim means that the "sheet" was a part of a thick digit.
        keep = is_first | ((located.score > 0) & ~tf.reduce_any(rim(located.digit)))
        best_part, best = tf.cond(keep, lambda: (part, located), lambda: (best_part, best))
        inner = part.pixels[sheet[0] : sheet[2], sheet[1] : sheet[3]]
        has_room = tf.reduce_min(tf.shape(inner)[:2]) >= SHEET_MIN_PIXELS
        sheet_part = Part(inner, part.origin + sheet[:2])
        return keep & has_room & ~picture.is_drawing, sheet_part, best_part, best

    scalar, image = tf.TensorShape([]), tf.TensorShape([None, None])
    part_shape = Part(tf.TensorShape([None, None, 3]), tf.TensorShape([2]))
    ink_shape = Ink(image, noise=scalar, strength=scalar, light=image, paper=image)
    box_shape, counts_shape = tf.TensorShape([4]), tf.TensorShape([len(Counts._fields)])
    chosen_shape = Chosen(score=scalar, digit=image, box=box_shape, counts=counts_shape, other_ink=scalar)
    located_shape = Located(scalar, tf.TensorShape([3]), ink_shape, image, scalar, chosen_shape)
    origin = tf.zeros([2], tf.int32)
    _, _, part, located = tf.while_loop(
        lambda more, *_: more,
        search,
        (tf.constant(True), Part(picture.pixels, origin), Part(picture.pixels[:0], origin), _nothing([0, 0])),
        shape_invariants=(scalar, part_shape, part_shape, located_shape),
        maximum_iterations=MAX_PASSES,
    )
    return part, located


def _locate_in(picture: Extended) -> tuple[Located, tf.Tensor]:
    """Return what lies in a picture, and its sheet as int32 [4]: top, left, bottom, right; zeros where there is none."""
    pixels = picture.pixels
    full = tf.cast(tf.shape(pixels)[:2], tf.float32)
    longer = tf.reduce_max(full)
    reduced_longer = tf.clip_by_value(longer / REDUCTION, *LOCATE_SIDE_PIXELS)
    size = tf.maximum(tf.cast(tf.round(full * (reduced_longer / longer)), tf.int32), MIN_SIDE_PIXELS)
    rgb = tf.image.resize(pixels[tf.newaxis], size, method="area")[0] / 255
    rgb = gaussian_blur(split_channels(rgb), NOISE_SIGMA)
    axis, is_thin = find_ink_axis(rgb, picture.is_drawing)
    grey = tf.tensordot(axis, rgb, 1)
    scale = tf.cast(size, tf.float32) / full
    room = tf.cast(tf.round(tf.cast(picture.room, tf.float32) * scale), tf.int32)
    # On a dark table the paper itself is what differs from the rim: search for it as if it were ink.
    is_framed = median(grey[::4, ::4]) - median(rim(grey)) > FRAME_CONTRAST
    widest = tf.constant(len(CLOSING_WINDOWS) - 1)

    def attempt(sign: tf.Tensor, located: Located, *_: tf.Tensor) -> tuple[tf.Tensor, Located, tf.Tensor, tf.Tensor]:
        is_ink = sign > 0
        first = tf.where(is_ink, tf.where(is_thin, 0, 1), widest)
        found = _locate_with_windows(sign * grey, sign * axis, first, crisp=is_ink & is_thin, room=room)
        return -sign, tf.cond(is_ink, lambda: found, lambda: located), found.chosen.digit, found.chosen.box

    # As a loop the graph holds the search once, which halves the time to trace and to load it.
    nothing = _nothing(tf.shape(grey))
    start = 1.0, nothing, nothing.chosen.digit, nothing.chosen.box
    _, located, component, box = tf.while_loop(
        lambda *_: True, attempt, start, maximum_iterations=tf.where(is_framed, 2, 1)
    )
    return located, tf.cast(tf.round(_inside_of_sheet(component, box, grey) / tf.tile(scale, [2])), tf.int32)


def _locate_with_windows(
    grey: tf.Tensor, axis: tf.Tensor, first: tf.Tensor, *, crisp: tf.Tensor, room: tf.Tensor
) -> Located:
    """Try closing windows from the first on, as long as a wider one gives a better score.

    Args:
        grey: float32 [h, w].
        axis: float32 [3], the ink axis that gave the grey.
        first: int32, index of the first of `CLOSING_WINDOWS` to try.
        crisp: whether the digit's edges must be sharp.
        room: int32 [2], rows and columns on each side that the picture was extended by.
    """

    def widen(
        k: tf.Tensor, best: Located, min_strength: tf.Tensor, _: tf.Tensor
    ) -> tuple[tf.Tensor, Located, tf.Tensor, tf.Tensor]:
        paper = tf.switch_case(k, [partial(closing, grey, window) for window in CLOSING_WINDOWS])
        ink = measure_ink(grey, axis, paper, min_strength)
        mask = ink_mask(ink, may_hold_shadow=k > first, room=room)
        chosen = tf.cond(tf.reduce_any(mask), lambda: choose_digit(mask, ink.values), lambda: choose_nothing(mask))
        weight = tf.cond(crisp, lambda: sharpness(chosen.digit, ink.values) ** SHARPNESS_EXPONENT, lambda: 1.0)
        shade = mean_shade(ink, mask)
        score = chosen.score * tf.exp(-SHADOW_PENALTY * shade) * weight
        located = Located(score, axis, ink, mask, shade, chosen)
        is_better = score > WIDER_WINDOW_GAIN * best.score
        # If both scores are about equal, the wider window is better: it leaves no grey in solid ink.
        best = tf.cond(score > WIDER_WINDOW_LOSS * best.score, lambda: located, lambda: best)
        # Shadows that a wider window lets in must not lower the strength that ink had in the first.
        min_strength = tf.where(min_strength > 0, min_strength, ink.strength)
        return k + 1, best, min_strength, is_better & (k + 1 < len(CLOSING_WINDOWS))

    start = first, _nothing(tf.shape(grey)), 0.0, True
    return tf.while_loop(lambda *state: state[-1], widen, start)[1]


def _nothing(size: tf.Tensor) -> Located:
    """Return a start for loops: its score is below that of any picture."""
    empty, zero = tf.zeros(size), tf.constant(0.0)
    mask = empty > 0
    ink = Ink(empty, noise=zero, strength=zero, light=empty, paper=empty)
    return Located(tf.constant(-1.0), tf.zeros([3]), ink, mask, zero, choose_nothing(mask))


def sharpness(digit: tf.Tensor, ink: tf.Tensor) -> tf.Tensor:
    """Return how abruptly ink begins along the edges of the digit, 0 to 1, from bool and float32 [H, W]."""
    inside = tf.cast(digit, tf.float32)
    edge = tf.cast(digit & ~erode(digit, 3), tf.float32)  # its outermost pixels
    strength = tf.math.divide_no_nan(tf.reduce_sum(inside * ink), tf.reduce_sum(inside))
    share = tf.clip_by_value(tf.math.divide_no_nan(contrast(ink, 5), strength), 0, 1)
    return tf.math.divide_no_nan(tf.reduce_sum(edge * share), tf.reduce_sum(edge))


def _inside_of_sheet(component: tf.Tensor, box: tf.Tensor, grey: tf.Tensor) -> tf.Tensor:
    """Return the inside of a sheet of paper, float32 [4]: top, left, bottom, right; zeros if the component is none.

    A sheet is solid and, except for what is written on it, of one grey.

    Args:
        component: bool [h, w].
        box: float32 [4], top, left, bottom, right of its true pixels.
        grey: float32 [h, w].
    """
    sides = box[2:] - box[:2]
    shorter, longer = tf.reduce_min(sides), tf.reduce_max(sides)
    # Cheap tests first: most components are no sheets. One that covers the picture has no surroundings to compare with.
    picture_longer = tf.cast(tf.reduce_max(tf.shape(grey)), tf.float32)
    is_large = shorter > tf.maximum(SHEET_MIN_SIDE * picture_longer, SHEET_MIN_ASPECT * longer)
    pixels = tf.reduce_sum(tf.cast(component, tf.float32))
    is_filled = (pixels > SHEET_MIN_FILL * shorter * longer) & (pixels < tf.cast(tf.size(component), tf.float32))

    def inside() -> tf.Tensor:
        top, left, bottom, right = tf.unstack(tf.cast(box, tf.int32))
        part = tf.cast(component[top:bottom, left:right], tf.float32)
        part = tf.image.resize(part[tf.newaxis, ..., tf.newaxis], [SHEET_GRID] * 2, method="area")[0, ..., 0]
        is_solid = tf.reduce_any(erode(part > 0.5, SHEET_MIN_SOLID))
        within = box + SHEET_MARGIN * shorter * [1.0, 1.0, -1.0, -1.0]
        return tf.cond(is_solid, lambda: tf.where(is_even(), within, 0.0), lambda: tf.zeros([4]))

    def is_even() -> tf.Tensor:
        on, off = (tf.gather_nd(grey, tf.where(part)) for part in (component, ~component))
        tolerance = SHEET_TOLERANCE * tf.abs(median(on) - median(off))
        return tf.reduce_mean(tf.cast(tf.abs(on - median(on)) < tolerance, tf.float32)) > SHEET_MIN_EVEN

    return tf.cond(is_large & is_filled, inside, lambda: tf.zeros([4]))
