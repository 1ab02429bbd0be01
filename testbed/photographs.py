"""Render MNIST digits as photographs of handwriting on paper or a board. Every picture is a function of its seed.

A digit becomes an outline (the signed distance to its edge, in high resolution). It is drawn again with another pen, size,
place and tilt, on paper with a colour and a grain, in uneven light, with specks and ruled lines. Blur, noise and JPEG
follow.
Each picture lists its nuisances, so that accuracy can be counted per nuisance.

Digits of the test split are for the final score only. Develop with training digits and other seeds.
"""

import io
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

OVERSAMPLING = 8
"""Resolution of the outline, in samples per pixel of MNIST."""


@dataclass(frozen=True)
class Photograph:
    """A picture file, its label and its nuisances."""

    encoded: bytes
    label: int
    nuisances: dict[str, str]
    """From the name of each nuisance to its kind or level in this picture."""


def photographs(images: np.ndarray, labels: np.ndarray, seed: int) -> Iterator[Photograph]:
    """Render one photograph of each digit, uint8 [N, 28, 28] and [N]. The k-th depends only on (seed, k) and its digit."""
    digits = ((image, int(label), seed, k) for k, (image, label) in enumerate(zip(images, labels, strict=True)))
    if len(images) < 50:
        yield from map(_numbered, digits)
        return
    with multiprocessing.get_context("forkserver").Pool() as pool:
        yield from pool.imap(_numbered, digits, chunksize=10)


def _numbered(digit: tuple[np.ndarray, int, int, int]) -> Photograph:
    image, label, seed, position = digit
    return photograph(image, label, np.random.default_rng([seed, position]))


def photograph(
    image: np.ndarray, label: int, random: np.random.Generator, *, min_longer_pixels: int = 40, min_share: float = 0.25
) -> Photograph:
    """Render one photograph.

    Args:
        image: what is written, uint8 [h, w], 0 = paper, 255 = ink, in MNIST's resolution.
        label: kept with the picture.
        random: determines the picture.
        min_longer_pixels: least longer side of the picture.
        min_share: what is written has this share of the picture's shorter side at least.
    """
    nuisances: dict[str, str] = {}
    height, width = _size(random, nuisances, min_longer_pixels)
    ink = _written(image, height, width, random, nuisances, min_share)
    ruling = _ruling(height, width, random, nuisances)
    specks = _specks(height, width, random, nuisances)
    paper, pen, lines = _colours(random, nuisances)
    picture = np.broadcast_to(paper, (height, width, 3)) * _grain(height, width, random, nuisances)
    for coverage, colour in ((ruling, lines), (specks, pen), (ink, pen)):
        picture = picture * (1 - coverage[..., np.newaxis]) + colour * coverage[..., np.newaxis]
    picture = picture * _light(height, width, random, nuisances)[..., np.newaxis]
    return Photograph(_taken(picture, random, nuisances), label, nuisances)


def _size(random: np.random.Generator, nuisances: dict[str, str], min_longer_pixels: int) -> tuple[int, int]:
    longer = round(float(np.exp(random.uniform(np.log(min_longer_pixels), np.log(1500)))))
    shorter = max(40, round(longer * random.uniform(0.6, 1)))
    nuisances["size, px"] = "40-100" if longer < 100 else "100-400" if longer < 400 else "400-1500"
    return (longer, shorter) if random.random() < 0.5 else (shorter, longer)


def _written(
    image: np.ndarray,
    height: int,
    width: int,
    random: np.random.Generator,
    nuisances: dict[str, str],
    min_share: float,
) -> np.ndarray:
    """Coverage by ink, float [height, width]."""
    outline = _outline(image)
    inside = outline > 0
    half_width = float(np.median(outline[inside & (outline >= ndimage.maximum_filter(outline, 3))]))
    pen = random.uniform(0.6, 1.7)
    nuisances["pen"] = "thin" if pen < 0.85 else "thick" if pen > 1.3 else "as written"
    widened = (pen - 1) * half_width
    share = random.uniform(max(min_share, 18 / min(height, width)), 0.85)
    nuisances["digit's share of the picture"] = "small" if share < 0.4 else "large" if share > 0.65 else "middle"
    degrees = random.uniform(-15, 15)
    nuisances["rotation"] = (
        "10-15 degrees" if abs(degrees) > 10 else "5-10 degrees" if abs(degrees) > 5 else "0-5 degrees"
    )
    rows, columns = (np.flatnonzero((outline > -max(widened, 0)).any(axis)) for axis in (1, 0))
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    scale = share * min(height, width) / extent
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    tall, wide = (np.ptp(rows) + 1) * scale, (np.ptp(columns) + 1) * scale
    reach_y, reach_x = (abs(cos) * tall + abs(sin) * wide) / 2, (abs(cos) * wide + abs(sin) * tall) / 2
    y, x = (
        random.uniform(min(reach + 1, side / 2), max(side - reach - 1, side / 2))
        for reach, side in ((reach_y, height), (reach_x, width))
    )
    nuisances["position"] = "centred" if abs(y / height - 0.5) + abs(x / width - 0.5) < 0.15 else "off centre"
    matrix = np.array([[cos, sin], [-sin, cos]]) / scale
    middle = np.array([rows[[0, -1]].mean(), columns[[0, -1]].mean()])
    sampled = ndimage.affine_transform(
        outline, matrix, middle - matrix @ [y, x], output_shape=(height, width), order=1, cval=outline.min()
    )
    return np.clip((sampled + widened) * scale + 0.5, 0, 1)


def _outline(image: np.ndarray) -> np.ndarray:
    """Signed distance to the edge of the ink in samples, positive inside; the margin leaves room for wider pens."""
    padded = np.pad(image.astype(np.float32), 6)
    inside = ndimage.gaussian_filter(ndimage.zoom(padded, OVERSAMPLING, order=1), 0.3 * OVERSAMPLING) > 110
    return ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)


def _ruling(height: int, width: int, random: np.random.Generator, nuisances: dict[str, str]) -> np.ndarray:
    kind = str(random.choice(["none", "lined", "squared"], p=[0.6, 0.25, 0.15]))
    nuisances["ruling"] = kind
    coverage = np.zeros((height, width))
    if kind == "none":
        return coverage
    period = min(height, width) * random.uniform(0.12, 0.4)
    thickness = max(0.7, period * random.uniform(0.02, 0.05))
    tilt = np.radians(random.uniform(-6, 6))
    y, x = np.mgrid[:height, :width]
    for angle in (tilt,) if kind == "lined" else (tilt, tilt + np.pi / 2):
        phase = (y * np.cos(angle) + x * np.sin(angle)) / period + random.random()
        distance = np.abs(phase - np.round(phase)) * period
        coverage = np.maximum(coverage, np.clip(thickness / 2 - distance + 0.5, 0, 1))
    return coverage


def _specks(height: int, width: int, random: np.random.Generator, nuisances: dict[str, str]) -> np.ndarray:
    count = int(random.integers(1, 15)) if random.random() < 0.4 else 0
    nuisances["specks"] = "none" if not count else "1-6" if count < 7 else "7-14"
    coverage = np.zeros((height, width))
    y, x = np.ogrid[:height, :width]
    for _ in range(count):
        radius = min(height, width) * random.uniform(0.003, 0.012)
        distance = np.hypot(y - random.uniform(0, height), x - random.uniform(0, width))
        coverage = np.maximum(coverage, np.clip(radius - distance + 0.5, 0, 1) * random.uniform(0.5, 1))
    return coverage


def _colours(random: np.random.Generator, nuisances: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RGB of paper, pen and ruled lines, 0 to 1. Pen and paper differ by at least 0.3; ruled lines are fainter."""
    light_on_dark = random.random() < 0.3
    nuisances["polarity"] = "light on dark" if light_on_dark else "dark on light"
    coloured = random.random() < 0.4
    nuisances["paper"] = "coloured" if coloured else "plain"
    while True:
        spread = 0.35 if coloured else 0.06
        paper = np.clip(random.uniform(0.7, 1) - random.uniform(0, spread, 3), 0, 1)
        pen = random.uniform(0, 0.35) + random.uniform(0, 0.35, 3) * random.integers(0, 2, 3)
        if light_on_dark:
            paper, pen = 0.3 * paper, np.clip(1 - pen / 2, 0, 1)
        contrast = float(np.abs(paper - pen).max())
        if contrast > 0.3:
            break
    nuisances["contrast"] = "low" if contrast < 0.5 else "high"
    return paper, pen, paper + (pen - paper) * random.uniform(0.15, 0.45)


def _grain(height: int, width: int, random: np.random.Generator, nuisances: dict[str, str]) -> np.ndarray:
    """Factor on the paper's reflectance, float [height, width, 1]."""
    strength = random.uniform(0.01, 0.06) if random.random() < 0.5 else 0.0
    nuisances["texture"] = "none" if not strength else "faint" if strength < 0.03 else "strong"
    grain = np.ones((height, width))
    for octave in (1, 3, 12) if strength else ():
        coarse = random.normal(size=(height // octave + 2, width // octave + 2))
        grain += strength / 2 * ndimage.zoom(coarse, octave, order=1)[:height, :width]
    return grain[..., np.newaxis]


def _light(height: int, width: int, random: np.random.Generator, nuisances: dict[str, str]) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    gradient = random.uniform(0.2, 0.6) if random.random() < 0.5 else 0.0
    nuisances["light gradient"] = "none" if not gradient else "mild" if gradient < 0.4 else "steep"
    angle = random.uniform(0, 2 * np.pi)
    light = 1 - gradient * (0.5 + (x * np.cos(angle) + y * np.sin(angle)) / 2 / np.sqrt(2))
    light = light - random.uniform(0, 0.15) * (x**2 + y**2) / 2
    shadow = random.uniform(0.15, 0.5) if random.random() < 0.4 else 0.0
    nuisances["shadow edge"] = "none" if not shadow else "weak" if shadow < 0.3 else "strong"
    if shadow:
        angle = random.uniform(0, 2 * np.pi)
        beyond = x * np.cos(angle) + y * np.sin(angle) - random.uniform(-0.6, 0.6)
        light = light * (1 - shadow / (1 + np.exp(-beyond / random.uniform(0.005, 0.1))))
    return light


def _taken(picture: np.ndarray, random: np.random.Generator, nuisances: dict[str, str]) -> bytes:
    """Apply a camera's exposure, blur and noise, then write PNG or JPEG."""
    blur = min(picture.shape[:2]) * random.uniform(0.001, 0.012) if random.random() < 0.5 else 0.0
    nuisances["blur"] = "none" if not blur else "some"
    if blur:
        picture = ndimage.gaussian_filter(picture, (blur, blur, 0))
    noise = random.uniform(0.005, 0.04)
    nuisances["noise"] = "faint" if noise < 0.02 else "strong"
    picture = picture * random.uniform(0.75, 1.05) + random.normal(0, noise, picture.shape)
    file = io.BytesIO()
    image = Image.fromarray((np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
    quality = int(random.integers(30, 96)) if random.random() < 0.75 else 0
    nuisances["file"] = "PNG" if not quality else "JPEG below 60" if quality < 60 else "JPEG 60-95"
    if quality:
        image.save(file, "JPEG", quality=quality)
    else:
        image.save(file, "PNG", compress_level=1)
    return file.getvalue()
