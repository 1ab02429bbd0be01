"""Any picture of a digit -> MNIST's own preparation, as TensorFlow ops, so that it runs inside the served graph.

MNIST's digits are white on black, fitted into 20x20 keeping their aspect, and centred by mass in 28x28. A network that
learned from them answers well about a photograph only after the same has been done to it, and doing it here, once, means
that no client can do it otherwise.

    file -> decode -> look: the picture at 128 pixels -> paper, ink, its colour and which of the two is darker
                                                      -> pieces of ink -> which of them are the digit
                   -> read: the digit's part of the picture, in its own resolution -> ink -> pen -> fitted, centred

Lengths are in pixels of the image that a function works on, light and ink in 0 to 1.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from trainer.components import connected_components
from trainer.decode import decode

BOX = 20
"""MNIST fits each digit into a square of so many pixels (yann.lecun.com/exdb/mnist)."""

LOOK = 128
"""Longer side of the reduced picture in which the digit is looked for."""

READ = 96
"""Longer side, in pixels, of the digit's part of the picture when it is read."""

WINDOWS = 21, 55, 101
"""Ink is nowhere as wide as one of these, in the reduced picture: the first leaves most shadows out, the last lets the
widest pens in."""

PREFERENCE = 1.2
"""How many times better a wider window has to be; where it is not, still wider ones are not tried."""

RULE = 7
"""Ruling is thinner than this, in the reduced picture."""


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
    named = tf.strings.join(["picture ", tf.strings.as_string(bad), " ", tf.gather(problems, bad)])
    all_well = tf.debugging.Assert(tf.size(bad) == 0, [tf.strings.reduce_join(named, separator="; ")])
    with tf.control_dependencies([all_well]):
        return tf.identity(images)


def normalize_pixels(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 [28, 28], 0 = paper, 255 = ink, of a picture uint8 [H, W, 3]."""
    return tf.cond(
        _is_prepared(pixels),
        lambda: tf.ensure_shape(pixels[..., 0], IMAGE_SHAPE),
        lambda: _prepare(pixels),
    )


def _is_prepared(pixels: tf.Tensor) -> tf.Tensor:
    """Whether the picture has MNIST's form already: 28x28 grey, mostly 0, within the box, its mass in the middle."""

    def looks_prepared() -> tf.Tensor:
        grey = pixels[..., 0]
        ink = tf.cast(grey, tf.float32)
        inked = grey > 0
        sides = [_extent(tf.reduce_any(inked, axis)) for axis in (1, 0)]
        mass = tf.reduce_sum(ink) + 1e-6
        away = [tf.abs(tf.reduce_sum(tf.reduce_sum(ink, a) * (tf.range(28.0) - 13.5)) / mass) for a in (1, 0)]
        return tf.reduce_all(
            [
                tf.reduce_all(pixels == pixels[..., :1]),
                tf.reduce_mean(tf.cast(inked, tf.float32)) < 0.6,
                tf.reduce_max(ink) > 127,
                tf.abs(tf.maximum(*sides) - BOX) <= 2,
                tf.maximum(*away) <= 1,
            ]
        )

    return tf.cond(tf.reduce_all(tf.shape(pixels)[:2] == IMAGE_SHAPE), looks_prepared, lambda: False)


def _extent(inked: tf.Tensor) -> tf.Tensor:
    """Pixels from the first to the last true one of bool [n]; 0 where there is none."""
    where = tf.where(inked)[:, 0]
    return tf.cond(tf.size(where) > 0, lambda: tf.cast(where[-1] - where[0] + 1, tf.int32), lambda: 0)


def _prepare(pixels: tf.Tensor) -> tf.Tensor:
    pixels = _with_room(pixels)
    look = _look(pixels)
    return tf.cond(look.score > 0, lambda: _read(pixels, look), lambda: tf.zeros(IMAGE_SHAPE, tf.uint8))


def _with_room(pixels: tf.Tensor) -> tf.Tensor:
    """A drawing or scan whose ink runs into its rim, with more of its paper around; other pictures as they are.

    At the rim of a photograph a shadow is more likely than ink, but not where the paper has one colour up to all corners.
    """
    rim = tf.cast(tf.concat([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]], axis=0), tf.int32)
    paper = tf.sort(rim, axis=0)[tf.shape(rim)[0] // 2]
    away = tf.reduce_max(tf.abs(rim - paper), axis=1)
    corners = tf.cast(tf.stack([pixels[0, 0], pixels[0, -1], pixels[-1, 0], pixels[-1, -1]]), tf.int32)
    even = tf.reduce_all(tf.abs(corners - paper) <= 8) & (tf.reduce_mean(tf.cast(away <= 8, tf.float32)) > 0.5)
    inked = even & (tf.reduce_max(away) > 64)

    def padded() -> tf.Tensor:
        room, colour = tf.reduce_max(tf.shape(pixels)) // 4, tf.cast(paper, tf.uint8)
        return tf.pad(pixels - colour, [[room, room], [room, room], [0, 0]]) + colour  # modulo 256

    return tf.cond(inked, padded, lambda: pixels)


class _Look(NamedTuple):
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


def _look(pixels: tf.Tensor) -> _Look:
    full = tf.cast(tf.shape(pixels)[:2], tf.float32)
    size = tf.maximum(tf.cast(tf.round(full * (LOOK / tf.reduce_max(full))), tf.int32), 8)
    rgb = _blur(tf.image.resize(pixels[tf.newaxis], size, method="area")[0] / 255, 0.8)
    axis = _axis(rgb)
    grey = tf.linalg.matvec(rgb, axis)
    best, strength = _pieces(grey, axis, WINDOWS[0], 0.0)

    def widened(best: _Look, windows: tuple[int, ...]) -> _Look:
        if not windows:
            return best
        wider, _ = _pieces(grey, axis, windows[0], strength)
        return tf.cond(wider.score > PREFERENCE * best.score, lambda: widened(wider, windows[1:]), lambda: best)

    return widened(best, WINDOWS[1:])


def _light(paper: tf.Tensor, axis: tf.Tensor) -> tf.Tensor:
    """float32 [h, w]: how bright the light on the paper is, around 1; shadows dim the ink that lies in them.

    Where ink and paper differ in hue alone, the grey that parts them says nothing of the light; nor does black paper.
    """
    bright = tf.abs(paper) + 0.5
    says = tf.nn.relu(tf.reduce_sum(axis)) / math.sqrt(3)
    return tf.clip_by_value(1 + says * (bright / tf.reduce_mean(bright) - 1), 0.3, 3.0)


def _axis(rgb: tf.Tensor) -> tf.Tensor:
    """float32 [3]: the colours that part ink from paper, pointing towards paper.

    Ink is what differs from its surroundings, and rarer than they are, so that the differences lean to its side; the rim
    of a picture is more often paper than not.
    """
    differences = rgb - _blur(rgb, 16.0)
    axis = _main_axis(tf.reshape(differences, [-1, 3]))
    along, grey = tf.linalg.matvec(differences, axis), tf.linalg.matvec(rgb, axis)
    lean = tf.reduce_mean(along**3) / (tf.reduce_mean(along**2) ** 1.5 + 1e-9)
    rim = tf.concat([grey[0], grey[-1], grey[:, 0], grey[:, -1]], axis=0)
    side = (tf.reduce_mean(rim) - tf.reduce_mean(grey)) / (tf.math.reduce_std(grey) + 1e-6)
    return tf.where(lean - 0.5 * side > 0, -axis, axis)


def _pieces(grey: tf.Tensor, axis: tf.Tensor, window: int, least: tf.Tensor) -> tuple[_Look, tf.Tensor]:
    """The digit among what is darker than the paper and nowhere as wide as the window, and the strength of ink."""
    paper = _close(grey, window)
    light = _light(paper, axis)
    ink = (paper - grey) / light
    # The third of the picture that is most like paper is paper; noise spreads it.
    values = tf.sort(tf.reshape(ink[::2, ::2], [-1]))
    low, high = values[tf.size(values) // 12], values[tf.size(values) // 3]
    noise = high - low
    usual = high + 0.4 * noise
    ink, paper = ink - usual, paper - usual * light
    strength = _contraharmonic(tf.nn.relu(ink - 3 * noise)) + 3 * noise
    strength = tf.maximum(strength, least)
    dark = ink > 0.4 * strength
    in_corner = tf.reduce_any(tf.stack([dark[:4, :4], dark[:4, -4:], dark[-4:, :4], dark[-4:, -4:]]))
    share = tf.where(in_corner, 0.65 if window > WINDOWS[0] else 0.4, 0.4)  # a shadow, most likely: ink is darker
    inked = ink > tf.maximum(4 * noise, share * strength)
    found = (strength > 0.04) & (strength > 6 * noise) & tf.reduce_any(inked)
    inked = inked & ~_ruling(ink > tf.maximum(3 * noise, 0.2 * strength))
    score, digit = tf.cond(
        found & tf.reduce_any(inked), lambda: _digit(inked, ink), lambda: (0.0, tf.zeros_like(inked))
    )
    # Uneven light that this window does not follow is neither paper nor ink.
    between = tf.clip_by_value((ink - 3 * noise) / strength, 0, 0.4)
    score *= tf.exp(-20 * tf.reduce_mean(tf.where(inked, 0.0, between)))
    return _Look(score, axis, light, paper, digit), strength


def _ruling(inked: tf.Tensor) -> tf.Tensor:
    """The thin straight lines from rim to rim of bool [h, w], without what crosses them."""
    across = _lines_across(inked)
    return across | tf.transpose(_lines_across(tf.transpose(inked & ~across)))


def _lines_across(inked: tf.Tensor) -> tf.Tensor:
    tall = tf.cast(inked, tf.float32)
    tall = _highest(-_highest(-tall, RULE), RULE) > 0  # of columns, the runs of at least RULE
    thin = inked & ~tall
    slopes = tf.linspace(-0.35, 0.35, 29)
    height, width = tf.unstack(tf.shape(inked))
    x = tf.range(tf.cast(width, tf.float32))
    # The line through (y, middle) with each slope: [slopes, width] below y.
    below = tf.cast(tf.round(slopes[:, tf.newaxis] * (x - tf.reduce_mean(x))), tf.int32)

    def lines_across() -> tf.Tensor:
        reach = tf.reduce_max(below)
        padded = tf.pad(_highest(tf.cast(thin, tf.float32), 3), [[reach, reach], [0, 0]])
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
        return (_highest(ruled, 3) > 0) & thin

    edges = tf.reduce_any(thin[:, :3]) & tf.reduce_any(thin[:, -3:])
    return tf.cond(edges, lines_across, lambda: tf.zeros_like(inked))


def _read(pixels: tf.Tensor, look: _Look) -> tf.Tensor:
    """uint8 [28, 28] of the digit that was found."""
    full, small = (tf.cast(tf.shape(image)[:2], tf.float32) for image in (pixels, look.digit))
    ratio = full / small
    top, bottom, left, right = _box(look.digit)
    margin = 2.0 + 0.05 * tf.maximum(bottom - top, right - left)
    start = tf.maximum(tf.stack([top, left]) - margin, 0)
    stop = tf.minimum(tf.stack([bottom, right]) + margin, small)
    first, last = tf.cast(tf.floor(start * ratio), tf.int32), tf.cast(tf.math.ceil(stop * ratio), tf.int32)
    part = pixels[first[0] : last[0], first[1] : last[1]]
    extent = tf.cast(last - first, tf.float32)
    size = tf.maximum(tf.cast(tf.round(extent * (READ / tf.reduce_max(extent))), tf.int32), 4)
    scale = tf.cast(size, tf.float32) / extent

    def enlarged(values: tf.Tensor) -> tf.Tensor:
        return _scale_and_translate(values, size, scale * ratio, -tf.cast(first, tf.float32) * scale, "triangle")

    rgb = tf.raw_ops.ScaleAndTranslate(
        images=part[tf.newaxis], size=size, scale=scale, translation=[0.0, 0.0], kernel_type="triangle", antialias=True
    )[0]
    grey = _blur(tf.linalg.matvec(rgb / 255, look.axis), 1.0)
    ink = tf.math.divide_no_nan(tf.nn.relu(enlarged(look.paper) - grey), enlarged(look.light))
    ink = ink * enlarged(_widest(tf.cast(look.digit, tf.float32), 3))
    ink = tf.clip_by_value((ink / (_contraharmonic(ink) + 1e-6) - 0.15) / 0.7, 0, 1)
    return _fit(_with_usual_pen(ink))


def _digit(inked: tf.Tensor, ink: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of the pieces in `inked`, those that are the digit, bool [h, w], and how much like one the first of them is."""
    height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(inked)))
    thick = _widest(tf.cast(inked, tf.float32), 3) > 0
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


def _main_axis(differences: tf.Tensor) -> tf.Tensor:
    """float32 [3], of length one: the direction in which float32 [n, 3] lie, the largest of them above all."""
    weights = tf.reduce_sum(differences**2, axis=1, keepdims=True)
    spread = tf.matmul(differences * weights, differences, transpose_a=True)
    spread = spread / (tf.linalg.trace(spread) + 1e-20)
    for _ in range(4):  # power iteration by squaring: the 16th power
        spread = spread @ spread
        spread = spread / (tf.linalg.trace(spread) + 1e-20)
    axis = tf.linalg.matvec(spread, tf.constant([0.57, 0.58, 0.58]))
    largest = tf.gather(spread, tf.argmax(tf.linalg.diag_part(spread)))
    axis = tf.where(tf.norm(axis) > 0.1 * tf.norm(largest), axis, largest)
    return tf.where(tf.norm(axis) > 1e-6, axis / (tf.norm(axis) + 1e-12), tf.constant([0.577, 0.577, 0.577]))


def _contraharmonic(values: tf.Tensor) -> tf.Tensor:
    """The mean of values weighted by their squares: that of the large ones, however few."""
    return tf.reduce_sum(values**3) / (tf.reduce_sum(values**2) + 1e-12)


def _blur(values: tf.Tensor, sigma: float) -> tf.Tensor:
    """Gaussian blur of float32 [h, w] or [h, w, c] as two products with banded matrices, normalised at the edges."""
    shape = tf.shape(values)
    rows = _gaussian(shape[0], sigma) @ tf.reshape(values, [shape[0], -1])
    if values.shape.rank == 2:
        return tf.matmul(rows, _gaussian(shape[1], sigma), transpose_b=True)
    return tf.einsum("hwc,xw->hxc", tf.reshape(rows, shape), _gaussian(shape[1], sigma))


def _gaussian(size: tf.Tensor, sigma: float) -> tf.Tensor:
    distance = tf.range(tf.cast(size, tf.float32))
    weights = tf.exp(-0.5 * ((distance[:, tf.newaxis] - distance) / sigma) ** 2)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def _close(grey: tf.Tensor, window: int) -> tf.Tensor:
    """Morphological closing: what is dark and nowhere as wide as the window is filled; the edge of a shadow stays."""
    return -_widest(-_widest(grey, window), window)


def _widest(values: tf.Tensor, window: int) -> tf.Tensor:
    """Maximum over a square around each of float32 [h, w]."""
    return tf.transpose(_highest(tf.transpose(_highest(values, window)), window))


def _highest(values: tf.Tensor, window: int) -> tf.Tensor:
    """Maximum over a part of the column around each of float32 [h, w]. Rows as channels make pooling a vector's work."""
    return tf.nn.max_pool2d(values[tf.newaxis, :, tf.newaxis, :], [window, 1], 1, "SAME")[0, :, 0, :]


def _box(inked: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Top, bottom, left and right of the true ones of bool [h, w], of which there must be one."""
    sides = []
    for axis in (1, 0):
        where = tf.cast(tf.where(tf.reduce_any(inked, axis))[:, 0], tf.float32)
        sides += [where[0], where[-1] + 1]
    top, bottom, left, right = sides
    return top, bottom, left, right


def _scale_and_translate(
    values: tf.Tensor, size: tf.Tensor, scale: tf.Tensor, translation: tf.Tensor, kernel: str
) -> tf.Tensor:
    return tf.raw_ops.ScaleAndTranslate(
        images=values[tf.newaxis, ..., tf.newaxis],
        size=size,
        scale=scale,
        translation=translation,
        kernel_type=kernel,
        antialias=True,
    )[0, ..., 0]


THINNEST, THICKEST = 2.0, 3.6
"""Width of strokes, in pixels of MNIST, between which nearly all of its training digits lie."""


def _with_usual_pen(ink: tf.Tensor) -> tf.Tensor:
    """The digit as if written with a pen of MNIST's width.

    The width of strokes is twice their area over the length of their edges, whatever they form.
    """
    reach = 8
    ink = tf.pad(ink, [[reach, reach], [reach, reach]])
    top, bottom, left, right = _box(ink >= 0.5 * tf.reduce_max(ink))
    extent = tf.maximum(bottom - top, right - left)
    width = stroke_width(ink)
    wanted = tf.clip_by_value(width * BOX / extent, THINNEST, THICKEST)
    # Widening by r on each side makes the digit larger too: (width + 2 r) / (extent + 2 r) = wanted / BOX.
    grow = (wanted * extent / BOX - width) / (2 * (1 - wanted / BOX))
    sign = tf.sign(grow)
    grow = tf.minimum(tf.abs(grow), float(reach))

    def widen(step: tf.Tensor, ink: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values = sign * ink
        square = tf.nn.max_pool2d(values[tf.newaxis, ..., tf.newaxis], 3, 1, "SAME")[0, ..., 0]
        beside = tf.maximum(
            tf.nn.max_pool2d(values[tf.newaxis, ..., tf.newaxis], [3, 1], 1, "SAME"),
            tf.nn.max_pool2d(values[tf.newaxis, ..., tf.newaxis], [1, 3], 1, "SAME"),
        )[0, ..., 0]
        # A disc grows by 1 in every direction: between the cross, slow along diagonals, and the square, too fast.
        wider = sign * (0.6 * beside + 0.4 * square)
        share = tf.minimum(grow - step, 1.0)
        return step + 1, (1 - share) * ink + share * wider

    return tf.while_loop(lambda step, _: step < grow, widen, (0.0, ink))[1]


def stroke_width(ink: tf.Tensor) -> tf.Tensor:
    """Mean width of the strokes of float32 [h, w], in pixels: twice the area over the length of the edges."""
    down, across = tf.image.image_gradients(ink[tf.newaxis, ..., tf.newaxis])
    edges = tf.reduce_sum(tf.sqrt(down**2 + across**2))
    return 2 * tf.reduce_sum(ink) / (edges + 1e-6)


def _fit(ink: tf.Tensor) -> tf.Tensor:
    """uint8 [28, 28] of ink float32 [h, w]: the box fitted, the mass in the middle."""
    top, bottom, left, right = _box(ink >= 0.3 * tf.reduce_max(ink))
    scale = BOX / tf.maximum(bottom - top, right - left)
    mass = tf.reduce_sum(ink) + 1e-6
    centre = [
        tf.reduce_sum(tf.reduce_sum(ink, axis) * (tf.range(tf.cast(tf.shape(ink)[1 - axis], tf.float32)) + 0.5)) / mass
        for axis in (1, 0)
    ]
    translation = tf.stack([side / 2 - scale * middle for side, middle in zip(IMAGE_SHAPE, centre, strict=True)])
    fitted = _scale_and_translate(ink, tf.constant(IMAGE_SHAPE), tf.stack([scale, scale]), translation, "box")
    return tf.cast(tf.round(255 * tf.clip_by_value(fitted, 0, 1)), tf.uint8)
