"""Training-only augmentation of whole batches, on the training device.

Six changes, each with settings of its own: serifs on ones, gaps in strokes, a random affine map, a smooth random
deformation, low resolution, and stroke width. The noise of an image is a function of (seed, step, position in the global
batch), so it depends neither on the number of replicas nor on where a run was resumed.

The examples of a batch are in random order, so which of them get a change may depend on their position. A batch is cut
into groups. The images of a group share one affine map and one deformation; the first groups get low resolution, the next
ones thicker and the last ones thinner strokes. So each change is computed for its images only, in arrays of fixed shape.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from serving.contract import IMAGE_SHAPE
from trainer.config import TrainConfig
from trainer.data.split import Split
from trainer.settings import AugmentationSettings
from trainer.training.input_pipeline import ReplicaSlice, batch_indices, uniform

LEAST_GROUPS, LARGEST_GROUP = 16, 16
"""A global batch is cut into groups of equal size: at most 16 images, and 16 groups at least."""

IMAGE_STREAM, GROUP_STREAM, ELASTIC_STREAM = 0, 1, 2
"""Streams of noise: of each image, of each group, and of the deformation of each group."""

SIDE = IMAGE_SHAPE[0]
PADDED_SIDE = SIDE + 2
"""Of an image with a rim of paper, one pixel wide."""


def augment(
    images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, settings: AugmentationSettings, part: ReplicaSlice
) -> tf.Tensor:
    """Change the images of one step in every way that the settings switch on.

    Args:
        images: uint8 [B, 28, 28], 0 = paper, 255 = ink.
        labels: uint8 [B].
        step: number of the training step; with the seed and each image's position it decides the noise.
        settings: which changes, and how strong.
        part: the seed, and which part of the global batch these B images are.

    Returns:
        uint8 [B, 28, 28].
    """
    noise = part.uniform(IMAGE_STREAM, step, 11)
    if settings.serif_ones_fraction:
        images = add_serifs(images, labels, noise[:, :4], settings.serif_ones_fraction)
    if settings.stroke_gap_fraction:
        images = add_gaps(images, noise[:, 4:7], settings.stroke_gap_fraction)

    slots, places = group_slots(part)
    count, size = slots.shape
    of_groups = uniform(part.seed, GROUP_STREAM, step, [count, 9])
    of_images = tf.reshape(tf.gather(tf.transpose(noise[:, 7:]), slots, axis=1), [4, count, 1, 1, size])
    # With the images of a group innermost, every operation below runs along contiguous memory.
    points = mapped_points(affine_maps(2 * of_groups[:, :6] - 1, settings))
    if settings.elastic_pixels:
        elastic_noise = uniform(part.seed, ELASTIC_STREAM, step, [count, 2, ELASTIC_CONTROLS**2])
        points += elastic_displacements(2 * elastic_noise - 1, settings.elastic_pixels)
    stacks = warp(tf.gather(images, slots.ravel()), points)

    reduced = math.ceil(count * settings.low_resolution_fraction)
    thicker = (reduced + count) // 2
    changed = [stacks]
    if reduced:
        is_reduced = of_images[0, :reduced] < settings.low_resolution_fraction * count / reduced
        low = reduce_resolution(stacks[:reduced], of_groups[:reduced, 6:], of_images[1:3, :reduced])
        changed = [tf.where(is_reduced, low, stacks[:reduced]), stacks[reduced:]]
    if settings.stroke_width_jitter_pixels:
        amounts = settings.stroke_width_jitter_pixels * of_images[3]
        rest = [
            move_edges(stacks[reduced:thicker], amounts[reduced:thicker], tf.maximum),
            move_edges(stacks[thicker:], amounts[thicker:], tf.minimum),
        ]
        changed = [*changed[:-1], *rest]
    stacks = tf.cast(tf.concat(changed, axis=0) + 0.5, tf.uint8)
    changed_images = tf.reshape(tf.transpose(stacks, [0, 3, 1, 2]), [-1, SIDE, SIDE])
    return tf.gather(changed_images, places)


def first_batch(split: Split, config: TrainConfig) -> np.ndarray:
    """Return the images of a run's first step as the model sees them: uint8 [B, 28, 28]."""
    positions = batch_indices(config.seed, len(split), config.global_batch_size, 0, 1)[0]
    images, labels = tf.constant(split.images[positions]), tf.constant(split.labels[positions])
    if config.unaugmented_epochs >= config.epochs:
        return images.numpy()
    part = ReplicaSlice(config.seed, config.global_batch_size)
    return augment(images, labels, tf.constant(0, tf.int64), config, part).numpy()


def is_identity(settings: AugmentationSettings) -> bool:
    """Return whether the settings switch on no change."""
    affine = settings.rotate_degrees or settings.zoom or settings.shift_pixels or settings.shear_degrees
    warped = affine or settings.elastic_pixels
    strokes = settings.stroke_width_jitter_pixels or settings.stroke_gap_fraction or settings.serif_ones_fraction
    return not (warped or strokes or settings.low_resolution_fraction)


def group_size(global_batch_size: int) -> int:
    """Return the largest divisor of the batch size within `LEAST_GROUPS` and `LARGEST_GROUP`; 1 if there is none."""
    largest = min(LARGEST_GROUP, global_batch_size // LEAST_GROUPS)
    return next((size for size in range(largest, 1, -1) if global_batch_size % size == 0), 1)


def group_slots(part: ReplicaSlice) -> tuple[np.ndarray, np.ndarray]:
    """Return which images of a slice are in each group of the global batch.

    All replicas have all groups, so that they compute each group in the same way, to the last bit. Where a group has fewer
    images in this slice than another, its row is padded with the slice's first image, whose result is discarded.

    Returns:
        int [G, N], numbers of images in the slice, and int [B], the place of each image among those G x N.
    """
    size = group_size(part.global_batch_size)
    groups = np.arange(part.global_batch_size)[part.positions] // size
    width = max(2, np.bincount(groups).max())  # a single column would be multiplied by another kernel
    # The images of a group are neighbours.
    places = groups * width + np.arange(len(groups)) - np.searchsorted(groups, groups)
    slots = np.zeros((part.global_batch_size // size, width), np.int32)
    slots.flat[places] = np.arange(len(groups))
    return slots, places


def affine_maps(noise: tf.Tensor, ranges: AugmentationSettings) -> tf.Tensor:
    """Draw random maps that rotate, shear, zoom and shift around the centre of an image.

    Args:
        noise: float32 [G, 6], uniform in [-1, 1).
        ranges: each part of a map is drawn within +- its setting.

    Returns:
        float32 [G, 6]: a, b, c, d, e, f of input pixel (a x + b y + c, d x + e y + f) for output pixel (x, y).
    """
    angle = noise[:, 0] * math.radians(ranges.rotate_degrees)
    slant = tf.tan(noise[:, 1] * math.radians(ranges.shear_degrees))
    scale_x, scale_y = 1 + noise[:, 2] * ranges.zoom, 1 + noise[:, 3] * ranges.zoom
    cos, sin = tf.cos(angle), tf.sin(angle)
    # Around the centre c: input = M (output - c) + c + shift, with M = rotation x shear x scale.
    a, b = cos / scale_x, (cos * slant - sin) / scale_y
    d, e = sin / scale_x, (sin * slant + cos) / scale_y
    centre = (SIDE - 1) / 2
    c = centre - (a + b) * centre + noise[:, 4] * ranges.shift_pixels
    f = centre - (d + e) * centre + noise[:, 5] * ranges.shift_pixels
    return tf.stack([a, b, c, d, e, f], axis=1)


def mapped_points(maps: tf.Tensor) -> tf.Tensor:
    """Return which point of the input each output pixel shows.

    Args:
        maps: float32 [G, 6] from `affine_maps`.

    Returns:
        float32 [G, 2, 28 * 28]: x and y, for the output pixels row by row.
    """
    y, x = (grid.ravel() for grid in np.mgrid[:SIDE, :SIDE])
    pixels = tf.constant(np.stack([x, y, np.ones(SIDE**2)]), tf.float32)
    return tf.reshape(tf.reshape(maps, [-1, 3]) @ pixels, [-1, 2, SIDE**2])


ELASTIC_SPACING_PIXELS = 7
"""Distance of the control points of a deformation: about the length over which strokes keep their shape."""

ELASTIC_CONTROLS = SIDE // ELASTIC_SPACING_PIXELS + 3
"""Control points along each axis. Cubic splines need some outside of the image."""


def elastic_displacements(noise: tf.Tensor, pixels: float) -> tf.Tensor:
    """Draw smooth deformations, as hands differ from writing to writing (P. Simard et al., ICDAR 2003).

    Args:
        noise: float32 [G, 2, `ELASTIC_CONTROLS`^2], uniform in [-1, 1): how far each control point moves.
        pixels: standard deviation of the displacement of a pixel, along each axis.

    Returns:
        float32 [G, 2, 28 * 28]: what is added to the points of `mapped_points`.
    """
    controls = ELASTIC_CONTROLS**2
    moved = tf.reshape(noise, [-1, controls]) @ tf.constant(pixels * _elastic_basis(), tf.float32)
    return tf.reshape(moved, [-1, 2, SIDE**2])


@functools.cache
def _elastic_basis() -> np.ndarray:
    """Return what each control point adds to the displacement of each pixel, [controls, 28 * 28]: cubic B-splines.

    Scaled so that uniform noise in [-1, 1) gives a standard deviation of 1, over all pixels.
    """
    controls = np.arange(ELASTIC_CONTROLS) - 1
    distance = np.abs(np.arange(SIDE) / ELASTIC_SPACING_PIXELS - controls[:, np.newaxis])
    spline = np.where(distance < 1, 4 - 6 * distance**2 + 3 * distance**3, np.maximum(2 - distance, 0) ** 3) / 6
    basis = np.kron(spline, spline)
    return basis * np.sqrt(3 / np.mean(np.sum(basis**2, axis=0)))


def warp(images: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Let each output pixel show a point of the input, interpolated; the images of a group share the points.

    On a CPU a group is the product of a sparse matrix, four weights a pixel, and the images of the group as columns. That
    takes a seventh of the time of TensorFlow's kernel, which computes the coordinates of each pixel of each image anew. On
    a GPU sparse products are not repeatable, and four pixels are gathered instead.

    Args:
        images: uint8 [G N, 28, 28], group by group.
        points: float32 [G, 2, 28 * 28] from `mapped_points`.

    Returns:
        float32 [G, 28, 28, N]; pixels that come in from outside are paper (0).
    """
    groups = points.shape[0]
    size = images.shape[0] // groups
    padded = tf.cast(tf.pad(images, [[0, 0], [1, 1], [1, 1]]), tf.float32)
    columns = tf.transpose(tf.reshape(padded, [groups, size, PADDED_SIDE**2]), [0, 2, 1])
    positions, weights = _bilinear_weights(points)
    if tf.config.list_logical_devices("GPU"):
        corners = tf.gather(columns, positions, axis=1, batch_dims=1)
        warped = tf.reduce_sum(corners * weights[..., tf.newaxis], axis=2)
    else:
        rows = np.repeat(np.arange(groups * SIDE**2), 4)
        blocks = PADDED_SIDE**2 * np.arange(groups)[:, np.newaxis, np.newaxis]
        warped = tf.raw_ops.SparseTensorDenseMatMul(
            a_indices=tf.stack([tf.constant(rows), tf.reshape(positions + blocks, [-1])], axis=1),
            a_values=tf.reshape(weights, [-1]),
            a_shape=tf.constant([groups * SIDE**2, groups * PADDED_SIDE**2], tf.int64),
            b=tf.reshape(columns, [groups * PADDED_SIDE**2, size]),
        )
    return tf.reshape(warped, [groups, SIDE, SIDE, size])


def _bilinear_weights(points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the four pixels around each point, and their weights.

    Returns:
        int64 [G, 28 * 28, 4], places in padded images, and float32 [G, 28 * 28, 4].
    """
    # Everything outside the image lands on the padding, which is paper; its first pixel is -1.
    points = 1 + tf.clip_by_value(points, -1.0, SIDE - 1e-3)
    corner = tf.floor(points)
    right, below = tf.unstack(points - corner, axis=1)
    left, above = 1 - right, 1 - below
    weights = tf.stack([left * above, right * above, left * below, right * below], axis=-1)
    first = tf.cast(corner[:, 1] * PADDED_SIDE + corner[:, 0], tf.int64)
    return first[..., tf.newaxis] + np.array([0, 1, PADDED_SIDE, PADDED_SIDE + 1]), weights


def add_serifs(images: tf.Tensor, labels: tf.Tensor, noise: tf.Tensor, fraction: float) -> tf.Tensor:
    """Add an upstroke to the top of some ones, and a foot to half of those: common handwriting that MNIST hardly contains.

    Args:
        images: uint8 [B, 28, 28].
        labels: [B]; only ones are changed.
        noise: float32 [B, 4], uniform in [0, 1).
        fraction: how many of the ones are changed.

    Returns:
        uint8 [B, 28, 28].
    """
    chosen = tf.where((labels == 1) & (noise[:, 0] < fraction))
    changed = _with_serifs(tf.gather_nd(images, chosen), tf.gather_nd(noise, chosen))
    return tf.tensor_scatter_nd_update(images, chosen, changed)


def _with_serifs(images: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    ink = tf.cast(images, tf.float32)
    rows = tf.range(images.shape[1])
    inked = tf.reduce_max(images, axis=2) > 127
    top = tf.reduce_min(tf.where(inked, rows, rows[-1]), axis=1)
    bottom = tf.reduce_max(tf.where(inked, rows, 0), axis=1)
    height = tf.cast(bottom - top + 1, tf.float32)
    # The area of a single stroke over its height is its width.
    width = tf.clip_by_value(tf.reduce_sum(ink, axis=[1, 2]) / (255 * height), 1.0, 5.0)

    def end(row: tf.Tensor, inwards: float) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the middle of the stroke, (y, x), half a stroke width inwards from its end."""
        values = tf.gather(ink, row, batch_dims=1)
        x = tf.reduce_sum(values * tf.cast(rows, tf.float32), axis=1) / (tf.reduce_sum(values, axis=1) + 1e-6)
        return tf.cast(row, tf.float32) + inwards * (width - 1) / 2, x

    angle = (20 + 45 * noise[:, 1]) * (math.pi / 180)  # below the horizontal; a flatter upstroke would make a seven
    length = (0.15 + 0.3 * noise[:, 2]) * height
    upstroke = _stroke(end(top, 1), angle, 0 * length, length, width)
    half = (0.1 + 0.2 * noise[:, 2]) * height
    foot = _stroke(end(bottom, -1), 0 * angle, -half, half, width)
    has_foot = (noise[:, 3] < 0.5)[:, tf.newaxis, tf.newaxis]
    return tf.cast(tf.round(tf.maximum(ink, 255 * tf.where(has_foot, tf.maximum(upstroke, foot), upstroke))), tf.uint8)


def _stroke(
    origin: tuple[tf.Tensor, tf.Tensor], angle: tf.Tensor, first: tf.Tensor, last: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Ink, 0 to 1, of straight strokes with round ends: float32 [B, 28, 28].

    Args:
        origin: y and x, float32 [B] each.
        angle: float32 [B], radians from leftwards to downwards.
        first: float32 [B], distance from the origin along that direction at which the stroke begins.
        last: float32 [B], the same of its end.
        width: float32 [B], in pixels.
    """

    def per_image(values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, [-1, 1, 1])

    side = tf.range(float(IMAGE_SHAPE[0]))
    y, x = side[:, tf.newaxis] - per_image(origin[0]), side - per_image(origin[1])
    down, right = per_image(tf.sin(angle)), per_image(-tf.cos(angle))
    along = tf.clip_by_value(y * down + x * right, per_image(first), per_image(last))
    away = tf.sqrt((y - along * down) ** 2 + (x - along * right) ** 2)
    return tf.clip_by_value(per_image(width) / 2 + 0.5 - away, 0, 1)


GAP_RANGE_PIXELS = 9.0
"""How far from the middle of the image a gap may lie, per axis."""


def add_gaps(images: tf.Tensor, noise: tf.Tensor, fraction: float) -> tf.Tensor:
    """Leave a gap 3 pixels wide in some digits; it may lie beside their strokes.

    Args:
        images: uint8 [B, 28, 28].
        noise: float32 [B, 3], uniform in [0, 1).
        fraction: how many of the digits are changed.

    Returns:
        uint8 [B, 28, 28].
    """
    chosen = tf.where(noise[:, 0] < fraction)
    ink = tf.cast(tf.gather_nd(images, chosen), tf.float32)
    places = tf.gather_nd(2 * noise - 1, chosen) * GAP_RANGE_PIXELS
    from_middle = tf.range(float(SIDE)) - (SIDE - 1) / 2
    y, x = (from_middle - places[:, k, tf.newaxis] for k in (1, 2))
    distance = tf.sqrt(y[:, :, tf.newaxis] ** 2 + x[:, tf.newaxis, :] ** 2)
    changed = tf.cast(tf.round(ink * tf.clip_by_value(distance - 1, 0, 1)), tf.uint8)
    return tf.tensor_scatter_nd_update(images, chosen, changed)


def move_edges(stacks: tf.Tensor, pixels: tf.Tensor, extreme: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Make strokes thicker or thinner.

    Args:
        stacks: float32 [G, 28, 28, N], 0 to 255.
        pixels: float32 [G, 1, 1, N], how far the edges move, at most 1.
        extreme: tf.maximum for thicker strokes, tf.minimum for thinner ones.

    Returns:
        float32 [G, 28, 28, N].
    """
    outside = 0.0 if extreme is tf.maximum else 255.0
    padded = tf.pad(stacks, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=outside)
    # Shifted copies are faster than pooling on a CPU.
    neighbours = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
    return stacks + pixels * (functools.reduce(extreme, neighbours, stacks) - stacks)


CELL_SIDES_PIXELS = 1.5, 2.0, 2.5, 3.0
"""Sides of the large pixels of a low-resolution picture; an MNIST digit is then 7 to 13 of them tall."""

PHASES = 4
"""Number of offsets of the grid of large pixels, per axis."""


def reduce_resolution(stacks: tf.Tensor, grids: tf.Tensor, contrast: tf.Tensor) -> tf.Tensor:
    """Show digits as if taken from a picture of few pixels: as blocks or smoothed, and with higher contrast.

    Args:
        stacks: float32 [G, 28, 28, N], 0 to 255.
        grids: float32 [G, 3], uniform in [0, 1): size and kind of the large pixels of a group, and where they lie.
        contrast: float32 [2, G, 1, 1, N], uniform in [0, 1): what becomes paper, and the range of the rest.

    Returns:
        float32 [G, 28, 28, N], 0 to 255.
    """
    matrices = tf.constant(_resampling_matrices(SIDE))
    kind = tf.cast(grids[:, 0] * (2 * len(CELL_SIDES_PIXELS)), tf.int32)
    rows, columns = (tf.gather(matrices, kind * PHASES + tf.cast(grids[:, k] * PHASES, tf.int32)) for k in (1, 2))
    ink = tf.reshape(rows @ tf.reshape(stacks, [-1, SIDE, SIDE * stacks.shape[3]]), tf.shape(stacks))
    ink = columns[:, tf.newaxis] @ ink
    # Weighting by squares gives the mean of the strokes, which the preparation of pictures takes for full ink.
    squares = ink**2
    strength = tf.reduce_sum(squares * ink, [1, 2], keepdims=True) / (
        tf.reduce_sum(squares, [1, 2], keepdims=True) + 1e-6
    )
    lowest, range_ = 0.3 * contrast[0], 0.4 + 0.6 * contrast[1]
    return tf.clip_by_value(ink * (255 / ((strength + 1e-6) * range_)) - 255 * lowest / range_, 0, 255)


def _resampling_matrices(side: int) -> np.ndarray:
    """Matrices that resample a row of pixels to large pixels and back: float32 [sides x (blocks, smoothed) x PHASES, side,
    side]."""
    matrices = []
    for cell in CELL_SIDES_PIXELS:
        for smoothed in (False, True):
            for phase in range(PHASES):
                edges = np.arange(-cell * (1 + phase / PHASES), side + 2 * cell, cell)
                pixels = np.arange(side)
                first, last = np.maximum(edges[:-1, None], pixels), np.minimum(edges[1:, None], pixels + 1)
                overlap = np.maximum(last - first, 0)  # [large pixels, pixels]
                away = np.abs(pixels + 0.5 - (edges[:-1, None] + cell / 2)) / cell
                spread = np.maximum(1 - away, 0) if smoothed else overlap
                matrices.append(spread.T @ overlap / cell)
    return np.stack(matrices).astype(np.float32)
