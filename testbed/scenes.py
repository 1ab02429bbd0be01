"""Render digits in scenes that people photograph and `photographs.py` does not cover: a sheet on a desk, ruled and squared
paper, a whiteboard, a finger in view, the shadow of a hand, a thin pen in 12 megapixels.

The digits are drawn as strokes, in one handwriting. The preparation of pictures was developed with some of these scenes
and other seeds, so they show what a change breaks, not how accurate the preparation is.
"""

import functools
import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from testbed.photographs import Photograph

Colour = tuple[int, int, int]

DIGITS = {
    0: [[(0.5, 0), (0.25, 0.1), (0.1, 0.5), (0.25, 0.9), (0.5, 1), (0.75, 0.9), (0.9, 0.5), (0.75, 0.1), (0.5, 0)]],
    1: [[(0.3, 0.3), (0.55, 0), (0.55, 1)]],
    2: [[(0.15, 0.25), (0.3, 0.05), (0.6, 0), (0.8, 0.2), (0.7, 0.5), (0.1, 1), (0.9, 1)]],
    3: [[(0.15, 0.1), (0.5, 0), (0.8, 0.15), (0.7, 0.4), (0.45, 0.48), (0.8, 0.6), (0.8, 0.85), (0.5, 1), (0.1, 0.9)]],
    4: [[(0.6, 0), (0.1, 0.65), (0.9, 0.65)], [(0.65, 0.35), (0.65, 1)]],
    5: [[(0.85, 0), (0.25, 0), (0.2, 0.45), (0.6, 0.4), (0.85, 0.65), (0.7, 0.95), (0.15, 0.95)]],
    6: [[(0.75, 0.02), (0.35, 0.3), (0.15, 0.7), (0.35, 1), (0.7, 0.95), (0.8, 0.7), (0.55, 0.52), (0.2, 0.65)]],
    7: [[(0.1, 0), (0.9, 0), (0.4, 1)], [(0.3, 0.5), (0.75, 0.5)]],
    8: [[(0.5, 0.48), (0.2, 0.25), (0.5, 0), (0.8, 0.25), (0.5, 0.48), (0.15, 0.75), (0.5, 1), (0.85, 0.75), (0.5, 0.48)]],
    9: [[(0.8, 0.25), (0.5, 0), (0.2, 0.25), (0.45, 0.5), (0.8, 0.3), (0.8, 0.1), (0.75, 0.6), (0.6, 1)]],
}  # fmt: skip
"""The strokes of each digit: (x, y) in a square of side 1."""

BIRO: Colour = (30, 35, 80)
PAPER: Colour = (236, 233, 226)


def scenes(seed: int) -> Iterator[Photograph]:
    """Render each digit in each scene. A picture depends only on (seed, scene, digit)."""
    for position, (name, draw) in enumerate(SCENES.items()):
        for digit in DIGITS:
            yield Photograph(draw(digit, np.random.default_rng([seed, position, digit])), digit, {"scene": name})


def drawing(digit: int) -> bytes:
    """Draw the digit on plain white, for comparison."""
    return _file(_write(_paper(400, 400, (255, 255, 255)), digit, np.random.default_rng(0), 100, 60, 280, 20), "PNG")


def _paper(height: int, width: int, colour: Colour = PAPER) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def _grained(
    height: int, width: int, colour: Colour, coarseness: int, contrast: float, random: np.random.Generator
) -> Image.Image:
    grain = random.normal(0, contrast, (height // coarseness + 2, width // coarseness + 2)).astype(np.float32)
    grain = np.asarray(Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray((grain[..., np.newaxis] + colour).clip(0, 255).astype(np.uint8))


def _write(
    image: Image.Image, digit: int, random: np.random.Generator, left: float, top: float, size: float, pen: int,
    ink: Colour = BIRO,
) -> Image.Image:  # fmt: skip
    draw = ImageDraw.Draw(image)
    for stroke in DIGITS[digit]:
        unsteady = random.normal(0, 0.013 * size, (len(stroke), 2))
        points = (np.array(stroke) * (0.7 * size, size) + (left, top) + unsteady).tolist()
        draw.line([tuple(point) for point in points], fill=ink, width=pen, joint="curve")
        for x, y in points:
            draw.ellipse([x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2], fill=ink)
    return image


def _take(image: Image.Image, random: np.random.Generator, light: np.ndarray | None = None, blur: float = 1.2) -> bytes:
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(blur)), np.float32)
    if light is None:
        y, x = _positions(image)
        light = 0.75 + 0.3 * x * random.uniform(0, 1) + 0.15 * y * random.uniform(-1, 1)
    noise = random.standard_normal((*pixels.shape[:2], 1), np.float32) * 4
    return _file(Image.fromarray((pixels * light[..., np.newaxis] + noise).clip(0, 255).astype(np.uint8)), "JPEG")


def _positions(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """y [height, 1] and x [1, width] of the pixels, as shares of height and width."""
    y, x = np.linspace(0, 1, image.height, dtype=np.float32), np.linspace(0, 1, image.width, dtype=np.float32)
    return y[:, np.newaxis], x[np.newaxis]


def _file(image: Image.Image, kind: str) -> bytes:
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def _desk(digit: int, random: np.random.Generator) -> bytes:
    image = _grained(2000, 1500, (110, 80, 55), 9, 12, random)
    ImageDraw.Draw(image).polygon([(200, 250), (1320, 180), (1400, 1700), (150, 1780)], fill=PAPER)
    return _take(_write(image, digit, random, 550, 600, 700, 18), random)


def _note(digit: int, random: np.random.Generator) -> bytes:
    image = _paper(2000, 1500, (60, 58, 62))
    ImageDraw.Draw(image).polygon([(350, 500), (1150, 470), (1180, 1300), (380, 1330)], fill=(250, 225, 90))
    return _take(_write(image, digit, random, 600, 700, 400, 20, (30, 30, 30)), random)


def _ruled(digit: int, random: np.random.Generator) -> bytes:
    image = _paper(2000, 1500)
    draw = ImageDraw.Draw(image)
    for y in range(100, 2000, 90):
        draw.line([(0, y), (1500, y + 20)], fill=(160, 180, 215), width=4)
    draw.line([(220, 0), (215, 2000)], fill=(220, 120, 120), width=4)
    return _take(_write(image, digit, random, 600, 800, 420, 10), random)


def _squared(digit: int, random: np.random.Generator) -> bytes:
    image = _paper(2000, 1500)
    draw = ImageDraw.Draw(image)
    for k in range(30, 2000, 60):
        draw.line([(0, k), (1500, k)], fill=(190, 205, 220), width=3)
        draw.line([(k, 0), (k, 2000)], fill=(190, 205, 220), width=3)
    return _take(_write(image, digit, random, 500, 700, 500, 12), random)


def _whiteboard(digit: int, random: np.random.Generator) -> bytes:
    image = _write(_paper(1500, 2000, (225, 228, 230)), digit, random, 700, 350, 800, 26, (20, 60, 160))
    y, x = _positions(image)
    glare = np.exp(-((x - 0.75) ** 2 * 32 + (y - 0.2) ** 2 * 18))
    return _take(image, random, 0.75 + 0.5 * glare)


def _chalk(digit: int, random: np.random.Generator) -> bytes:
    board = _grained(1500, 2000, (45, 60, 52), 80, 14, random)
    chalked = np.array(_write(board, digit, random, 800, 350, 800, 24, (215, 215, 205)))
    chalked[(random.random((1500, 2000)) < 0.25) & (chalked.mean(2) > 150)] //= 2
    return _take(Image.fromarray(chalked), random)


def _pencil(digit: int, random: np.random.Generator) -> bytes:
    return _take(_write(_paper(2000, 1500), digit, random, 500, 700, 500, 8, (165, 163, 160)), random)


def _finger(digit: int, random: np.random.Generator) -> bytes:
    image = _write(_paper(2000, 1500), digit, random, 550, 500, 600, 14)
    ImageDraw.Draw(image).ellipse([900, 1500, 1500, 2600], fill=(205, 150, 125))
    return _take(image, random, blur=2)


def _hand(digit: int, random: np.random.Generator) -> bytes:
    image = _write(_paper(2000, 1500), digit, random, 550, 700, 600, 14)
    y, x = _positions(image)
    away = np.hypot(1500 * x - 1500, 2000 * y - 1900)
    return _take(image, random, 1 - 0.4 / (1 + np.exp((away - 900) / 60)))


def _beside_shadow(digit: int, random: np.random.Generator, *, height: int, width: int, size: int, pen: int) -> bytes:
    left = random.uniform(0.1, max(0.11, 0.9 - size / width)) * width
    top = random.uniform(0.1, max(0.11, 0.9 - size / height)) * height
    image = _write(_paper(height, width), digit, random, left, top, size, pen)
    y, x = _positions(image)
    shadow = 1 - 0.35 / (1 + np.exp(-(0.7 * x + 0.5 * y * height / width - 0.6) / 0.02))
    light = (0.55 + 0.5 * x * random.uniform(0.3, 1) + 0.2 * y) * shadow
    return _take(image, random, light, blur=max(1, pen / 8))


SCENES: dict[str, Callable[[int, np.random.Generator], bytes]] = {
    "a sheet on a desk": _desk,
    "a note on a dark table": _note,
    "ruled paper": _ruled,
    "squared paper": _squared,
    "a whiteboard, with glare": _whiteboard,
    "chalk": _chalk,
    "pencil": _pencil,
    "a finger in view": _finger,
    "the shadow of a hand": _hand,
    **{
        f"beside a shadow, {name}": functools.partial(_beside_shadow, height=height, width=width, size=size, pen=pen)
        for name, height, width, size, pen in (
            ("biro, close", 1600, 1200, 1000, 14),
            ("biro, 2 megapixels", 1600, 1200, 350, 5),
            ("biro, small in a page", 1200, 1600, 150, 4),
            ("marker, 12 megapixels", 4000, 3000, 1500, 60),
            ("biro, 12 megapixels", 4000, 3000, 900, 10),
            ("biro, small in 12 megapixels", 4000, 3000, 500, 8),
        )
    },
}
"""From the name of each scene to its function, which takes a digit and a generator and returns a JPEG file."""
