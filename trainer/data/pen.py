"""Digits drawn by a parametric pen, in MNIST's form: shapes that much of the world writes and MNIST hardly has.

MNIST's writers are American. The skeletons (trainer/data/skeletons.py) are the strokes of other hands too: a 1 with a long
upstroke, a barred 7, an open 4. A drawn digit is a skeleton whose points are moved, which is bent, stretched, slanted and
drawn with a pen of its own width, then fitted into 20x20 and centred by mass like MNIST's digits.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from serving.contract import CLASSES, IMAGE_SHAPE
from trainer.data.skeletons import STYLES, Form, Style
from trainer.data.split import Split

BOX_SIDE_PIXELS = 20
"""MNIST's digits fit into a square of this side."""

BETWEEN_RANGE = -0.15, 1.15
"""Place of a digit between the two forms of its style, 0 to 1, and a little beyond them."""
POINT_SD = 0.035
"""Movement of each point of a skeleton, in heights of the digit."""
BEND_SD = 0.13
"""Size of each term of the polynomials that bend the digit."""
LOG_STRETCH_RANGE = -0.2, 0.6
"""Logarithm of the factor on the width. The skeletons are narrow; some hands write digits as wide as high."""
SLANT_MEAN, SLANT_SD = 0.1, 0.18
"""How far the top lies to the right of the foot, in heights of the digit."""
TURN_SD = 0.06
"""Rotation, in radians."""
PEN_WIDTH_PIXELS = 1.5, 4.2
PRESSURE = 0.15
"""Share of its width that a stroke gains and loses along its way."""
STRETCHED_WIDTH_PIXELS = 7.0, 14.0
"""Width of a digit that is stretched."""
EDGE_STEEPNESS = 0.6, 1.2
"""Ink per pixel across the edge of a stroke."""

SAMPLES_PER_HEIGHT = 48
"""Points on a curve: less than half a pixel apart, so that they join into a stroke."""
CHUNK = 256
"""Digits drawn at a time, so that the arrays stay small."""


def draw_digits(count: int, seed: int, *, rare: bool = True) -> Split:
    """Draw digits: about `count`, as many of each digit, each style as often as its weight says.

    The same seed gives the same digits. Without `rare`, no rare style is drawn.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    images, labels = [], []
    with ThreadPoolExecutor() as pool:  # NumPy computes outside Python's lock.
        for digit in range(CLASSES):
            styles = [style for style in STYLES[digit] if rare or not style.rare]
            weights = np.cumsum([style.weight for style in styles])
            ends = np.rint(weights / weights[-1] * count / CLASSES).astype(int)
            for style, number in zip(styles, np.diff(ends, prepend=0), strict=True):
                images += [pool.submit(_draw, strokes) for strokes in _strokes(style, int(number), generator)]
                labels.append(np.full(number, digit, np.uint8))
    return Split(np.concatenate([chunk.result() for chunk in images]), np.concatenate(labels))


def draw_style(style: Style, count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw `count` digits of one style: uint8 [count, 28, 28], 0 = paper, 255 = ink."""
    chunks = [_draw(strokes) for strokes in _strokes(style, count, generator)]
    return np.concatenate([np.zeros((0, *IMAGE_SHAPE), np.uint8), *chunks])


class _Strokes(NamedTuple):
    """How the pen moves along the curves of N digits."""

    points: np.ndarray
    """Where it stands: float64 [N, samples, (x, y)], in pixels."""
    pressure: np.ndarray
    """What its width is multiplied by there: float64 [N, samples]."""
    stretch: np.ndarray
    """What the digits are stretched by across: float64 [N]; 1 for most styles."""
    width: np.ndarray
    """Its mean width in pixels: float64 [N, 1, 1]."""
    steepness: np.ndarray
    """Of the edges of its strokes, in ink per pixel: float64 [N, 1, 1]."""


def _strokes(style: Style, count: int, generator: np.random.Generator) -> list[_Strokes]:
    """Draw the random numbers of `count` digits, in chunks: fit curves into MNIST's box, and centre them by mass."""
    return [
        _fit(_curves(style, min(CHUNK, count - start), generator), style, generator) for start in range(0, count, CHUNK)
    ]


def _curves(style: Style, count: int, generator: np.random.Generator) -> np.ndarray:
    """Points on the strokes of `count` digits, float64 [count, samples, (x, y)]; the pen stands at each."""
    matrix, first = _spline(style.first)
    _, second = _spline(style.second)
    between = generator.uniform(*BETWEEN_RANGE, (count, 1, 1))
    points = first + between * (second - first)
    points += generator.normal(0, POINT_SD, points.shape)
    x, y = np.moveaxis(matrix @ points - points.mean(axis=1, keepdims=True), -1, 0)
    bend = generator.normal(0, BEND_SD, (8, count, 1))
    x, y = (
        x + bend[0] * x**2 + bend[1] * x * y + bend[2] * y**2 + bend[3] * 4 * y**3,
        y + bend[4] * x**2 + bend[5] * x * y + bend[6] * y**2 + bend[7] * x * y**2,
    )
    x *= np.exp(generator.uniform(*LOG_STRETCH_RANGE, (count, 1)))
    x -= generator.normal(SLANT_MEAN, SLANT_SD, (count, 1)) * y
    turn = generator.normal(0, TURN_SD, (count, 1))
    return np.stack([x - turn * y, y + turn * x], axis=-1)


def _spline(form: Form) -> tuple[np.ndarray, np.ndarray]:
    """Catmull-Rom curves through the points of each stroke.

    Returns:
        A matrix that makes the samples on the curves of the form's points, float64 [samples, points], and these points,
        float64 [points, (x, y)]. A corner, which is two equal points of a stroke, counts once.
    """
    points, rows = [], []
    for stroke in form:
        numbers: list[int] = []
        for position, point in enumerate(stroke):
            if not position or point != stroke[position - 1]:
                points.append(point)
            numbers.append(len(points) - 1)
        # A segment from b to c has the tangents (c - a) / 2 and (d - b) / 2. At an end, and at a corner, where b is its
        # own neighbour, the tangent points along the segment.
        around = [numbers[0], *numbers, numbers[-1]]
        for a, b, c, d in zip(around, around[1:], around[2:], around[3:], strict=False):
            length = np.hypot(*np.subtract(points[c], points[b]))
            for t in np.linspace(0, 1, max(2, int(np.ceil(length * SAMPLES_PER_HEIGHT)))) if b != c else ():
                weights = {a: 0.0, b: 0.0, c: 0.0, d: 0.0}
                weights[b] += 2 * t**3 - 3 * t**2 + 1
                weights[c] += 3 * t**2 - 2 * t**3
                weights[c] += (t**3 - 2 * t**2 + t) / 2
                weights[a] -= (t**3 - 2 * t**2 + t) / 2
                weights[d] += (t**3 - t**2) / 2
                weights[b] -= (t**3 - t**2) / 2
                rows.append(weights)
    matrix = np.zeros((len(rows), len(points)))
    for row, weights in zip(matrix, rows, strict=True):
        row[list(weights)] = list(weights.values())
    return matrix, np.array(points)


def _fit(curves: np.ndarray, style: Style, generator: np.random.Generator) -> _Strokes:
    count, samples, _ = curves.shape
    width = style.pen_width_factor * generator.uniform(*PEN_WIDTH_PIXELS, (count, 1, 1))
    extent = np.ptp(curves, axis=1, keepdims=True)
    scale = (BOX_SIDE_PIXELS - width) / extent.max(axis=-1, keepdims=True)
    stretch = np.ones((count, 1, 2))
    if style.stretched:
        stretch[..., 0] = generator.uniform(*STRETCHED_WIDTH_PIXELS, (count, 1)) / (extent * scale + width)[..., 0]
        stretch = np.maximum(stretch, 1)
    centred = (curves - curves.mean(axis=1, keepdims=True)) * scale * stretch + (IMAGE_SHAPE[0] - 1) / 2
    phase = generator.uniform(0, 2, (count, 1)) + generator.uniform(0.5, 3, (count, 1)) * np.linspace(0, 1, samples)
    pressure = 1 + generator.uniform(-PRESSURE, PRESSURE, (count, 1)) * np.cos(np.pi * phase)
    steepness = generator.uniform(*EDGE_STEEPNESS, (count, 1, 1)) * stretch[..., :1]
    return _Strokes(centred, pressure, stretch[:, 0, 0], width, steepness)


def _draw(strokes: _Strokes) -> np.ndarray:
    """Draw along the curves: uint8 [N, 28, 28]."""
    # With the digits innermost, every operation runs along contiguous memory. Most work in place: large arrays are slow to
    # allocate.
    points = np.ascontiguousarray(np.moveaxis(strokes.points, 0, -1))
    # Squared distances of each pixel to the nearest sample. Divided by the pressure, so that one width serves all samples.
    offsets = np.arange(IMAGE_SHAPE[0])[:, np.newaxis] - points[:, :, np.newaxis]
    if (strokes.stretch != 1).any():
        offsets[:, 0] /= strokes.stretch
    offsets /= np.ascontiguousarray(strokes.pressure.T)[:, np.newaxis, np.newaxis]
    squares = offsets.astype(np.float32)  # [samples, (x, y), 28, N]
    squares *= squares
    nearest = np.full((*IMAGE_SHAPE, len(strokes.points)), np.inf, np.float32)
    to_sample = np.empty_like(nearest)
    for across, down in squares:
        np.add(down[:, np.newaxis], across, out=to_sample)
        np.minimum(nearest, to_sample, out=nearest)
    ink = np.clip((strokes.width[:, 0, 0] / 2 - np.sqrt(nearest)) * strokes.steepness[:, 0, 0] + 0.5, 0, 1)
    return np.ascontiguousarray(np.rint(255 * ink).astype(np.uint8).transpose(2, 0, 1))
