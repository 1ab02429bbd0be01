"""Morphology of masks and grey images, as TensorFlow ops that run inside the served graph.

Lengths are in pixels of the image that a function works on.
"""

import tensorflow as tf

MAX_RULE_WIDTH_PIXELS = 7
"""Ruled lines are narrower than this, in the reduced picture, whose longer side has 128 to 256 pixels."""

MAX_RULE_SLOPE = 0.35
"""Paper is photographed up to 19 degrees askew."""

RULE_SLOPES = 29
"""Slopes that are tried, 0.025 apart: in 256 columns a line is at most 1.6 pixels away from the nearest one."""

RULE_RIM_PIXELS = 3
"""A ruled line comes so close to the rims at both of its ends."""

MIN_RULE_COVERAGE = 0.75
"""Share of a line's columns that must be dark. The rest may be faint, or hidden by ink."""


def dilate(values: tf.Tensor, window: int) -> tf.Tensor:
    """Return the maximum of [..., h, w], bool or numbers, over a square of `window` pixels, odd, around each pixel."""
    return dilate_along(dilate_along(values, window, -2), window, -1)


def dilate_along(values: tf.Tensor, window: int, axis: int) -> tf.Tensor:
    """Return the maximum of [..., h, w], bool or numbers, over `window` pixels, odd, around each pixel along one axis.

    Each step combines the values with themselves, shifted, and doubles what they cover. A pooling op takes up to three
    times as long, and works on floats along columns only.
    """
    paddings = [[0, 0]] * values.shape.rank
    paddings[axis] = [window // 2] * 2
    is_mask = values.dtype == tf.bool
    values = tf.pad(values, paddings, constant_values=False if is_mask else values.dtype.min)
    covered = 1
    while covered < window:
        step = min(covered, window - covered)
        before, after = slice(None, -step), slice(step, None)
        first, second = (values[..., part, :] if axis == -2 else values[..., part] for part in (before, after))
        values = first | second if is_mask else tf.maximum(first, second)
        covered += step
    return values


def erode(values: tf.Tensor, window: int) -> tf.Tensor:
    """Return the minimum of [..., h, w], bool or numbers, over a square of `window` pixels, odd, around each pixel."""
    return _complement(dilate(_complement(values), window))


def closing(grey: tf.Tensor, window: int) -> tf.Tensor:
    """Apply a morphological closing to [H, W]: fill what is darker than its surroundings and narrower than the window.

    Pooled: shifts would take a little less time, but wide windows a thousand nodes, and loading the graph a second.
    """
    # Erosion may begin with the rows, where dilation ended: that saves two transpositions.
    dilated = _pool_columns(tf.transpose(_pool_columns(grey, window)), window)
    return -_pool_columns(tf.transpose(_pool_columns(-dilated, window)), window)


def _pool_columns(values: tf.Tensor, window: int) -> tf.Tensor:
    """Return the maximum of float32 [h, w] over `window` pixels of the column around each pixel.

    Rows are given to the pooling op as channels, so that it works on whole vectors.
    """
    return tf.nn.max_pool2d(values[tf.newaxis, :, tf.newaxis], [window, 1], 1, "SAME")[0, :, 0]


def contrast(values: tf.Tensor, window: int) -> tf.Tensor:
    """Return the maximum less the minimum of float32 [h, w] over a square of `window` pixels around each pixel."""
    return dilate(values, window) - erode(values, window)


def _complement(values: tf.Tensor) -> tf.Tensor:
    return ~values if values.dtype == tf.bool else -values


def bounding_box(mask: tf.Tensor) -> tf.Tensor:
    """Return top, left, bottom, right, float32 [4], of the true pixels of bool [h, w]; at least one must be true."""
    ends = []
    for axis in (1, 0):
        where = tf.where(tf.reduce_any(mask, axis))[:, 0]
        ends.append(tf.stack([where[0], where[-1] + 1]))
    return tf.cast(tf.reshape(tf.stack(ends, axis=1), [4]), tf.float32)


def stroke_width(ink: tf.Tensor) -> tf.Tensor:
    """Return the mean stroke width of float32 [h, w], in pixels: twice their area over the length of their edges."""
    down = tf.pad(ink[1:] - ink[:-1], [[0, 1], [0, 0]])
    across = tf.pad(ink[:, 1:] - ink[:, :-1], [[0, 0], [0, 1]])
    edges = tf.reduce_sum(tf.sqrt(down**2 + across**2))
    return 2 * tf.reduce_sum(ink) / (edges + 1e-6)


def connected_components(where: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Label the 8-connected components of a mask; TensorFlow has no op for it.

    Neighbouring pixels of a row form a run. Every run points to a run of its component. In each round the larger of two
    touching runs' roots is hung under the smaller, and all paths are halved. The number of rounds grows with the logarithm
    of the longest component (Y. Zhang, A. Azad, Z. Hu, "FastSV", SIAM PP 2020).

    Args:
        where: int64 [n, 2], row and column of each true pixel, in the order of `tf.where`; n may be 0.
        size: int64 [2], height and width of the mask.

    Returns:
        The label of each true pixel, int32 [n] from 0, and the number of components.
    """
    # Places in a mask that is padded by one pixel, where the end of a row and the start of the next are not neighbours.
    height, width = tf.unstack(size + 2)
    row, column = tf.unstack(where + 1, axis=1)
    places = row * width + column
    begins = places - tf.pad(places, [[1, 0]])[:-1] != 1
    run = tf.cumsum(tf.cast(begins, tf.int32))  # of each pixel, from 1
    padded = tf.scatter_nd(places[:, tf.newaxis], run, [height * width])
    starts = tf.gather(places, tf.where(begins)[:, 0])
    runs = tf.range(tf.size(starts))
    # Of two touching runs, the one that does not start farther left touches the other above or below its start, or
    # diagonally left of there.
    touching = tf.gather(padded, starts[:, tf.newaxis] + width * [-1, -1, 1, 1] + [-1, 0, -1, 0]) - 1
    touching = tf.where(touching < 0, runs[:, tf.newaxis], touching)

    def join(parents: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        own, other = parents[:, tf.newaxis], tf.gather(parents, touching)
        higher = tf.maximum(own, other)
        joined = tf.tensor_scatter_nd_min(parents, higher[..., tf.newaxis], tf.minimum(own, other))
        joined = tf.gather(joined, joined)
        joined = tf.gather(joined, joined)
        return joined, tf.reduce_any(joined != parents)

    roots, _ = tf.while_loop(lambda _, changed: changed, join, (runs, tf.constant(True)))
    components, labels = tf.unique(roots)
    return tf.gather(labels, run - 1), tf.size(components)


def ruled_lines(mask: tf.Tensor) -> tf.Tensor:
    """Return the lines that paper is ruled with: the thin straight lines from rim to rim of bool [h, w].

    Pixels where a wider stroke crosses a line are not part of the result.
    """
    across = _lines_along(mask, -1)
    return across | _lines_along(mask & ~across, -2)


def _lines_along(mask: tf.Tensor, axis: int) -> tf.Tensor:
    """Return ruled lines between two opposite rims: from left to right for axis -1, from top to bottom for -2."""

    def nothing() -> tf.Tensor:
        return tf.zeros_like(mask)

    def search() -> tf.Tensor:
        # Opening across the lines keeps the runs that are too long for a ruled line.
        other = -3 - axis
        wide = dilate_along(~dilate_along(~mask, MAX_RULE_WIDTH_PIXELS, other), MAX_RULE_WIDTH_PIXELS, other)
        thin = mask & ~wide
        return tf.cond(_is_at_both_rims(thin, axis), lambda: lines(thin), nothing)

    def lines(thin: tf.Tensor) -> tf.Tensor:
        return _lines_across(thin) if axis == -1 else tf.transpose(_lines_across(tf.transpose(thin)))

    # Most pictures have no ink, or nothing thin, at both rims, and are spared the search.
    return tf.cond(_is_at_both_rims(mask, axis), search, nothing)


def _is_at_both_rims(mask: tf.Tensor, axis: int) -> tf.Tensor:
    """Return whether bool [h, w] is true within `RULE_RIM_PIXELS` of both rims: left and right for axis -1, top and bottom
    for -2."""
    rim = RULE_RIM_PIXELS
    first, last = (mask[:, :rim], mask[:, -rim:]) if axis == -1 else (mask[:rim], mask[-rim:])
    return tf.reduce_any(first) & tf.reduce_any(last)


def _lines_across(thin: tf.Tensor) -> tf.Tensor:
    """Lines of bool [h, w], where nothing is wider than a ruled line, from the left rim to the right one."""
    slopes = tf.linspace(-MAX_RULE_SLOPE, MAX_RULE_SLOPE, RULE_SLOPES)
    height, width = tf.unstack(tf.shape(thin))
    x = tf.range(tf.cast(width, tf.float32))
    # How far below its middle the line with each slope is in each column: [slopes, width].
    below = tf.cast(tf.round(slopes[:, tf.newaxis] * (x - tf.reduce_mean(x))), tf.int32)
    reach = tf.reduce_max(below)
    padded = tf.pad(tf.cast(dilate_along(thin, 3, -2), tf.float32), [[reach, reach], [0, 0]])
    columns = tf.transpose(padded)  # [width, height + 2 reach]
    y = tf.range(height)
    positions = y[:, tf.newaxis, tf.newaxis] + below + reach  # [height, slopes, width]
    flat = tf.range(width) * tf.shape(columns)[1] + positions
    # Every second column is enough to tell a line.
    covered = tf.reduce_mean(tf.gather(tf.reshape(columns, [-1]), flat[..., ::2]), axis=2)
    lines = tf.where(covered > MIN_RULE_COVERAGE)  # [n, (y, slope)]
    rows = tf.cast(lines[:, :1], tf.int32) + tf.gather(below, lines[:, 1])  # [n, width]
    rows = tf.clip_by_value(rows, 0, height - 1)
    points = tf.stack([rows, tf.broadcast_to(tf.range(width), tf.shape(rows))], axis=-1)
    ruled = tf.scatter_nd(tf.reshape(points, [-1, 2]), tf.ones([tf.size(rows)]), tf.shape(thin)) > 0
    return dilate_along(ruled, 3, -2) & thin
