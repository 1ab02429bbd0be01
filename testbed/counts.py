"""Render pictures without a digit and pictures of several digits: blank, textured, text, faces; pairs and triples.

A model that says how many digits it found should say "none" for the first and "several" for the others. Every picture is a
function of its seed. Develop with other seeds than the benchmark's.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

from testbed.photographs import Photograph, photograph

WORDS = [
    "the", "of", "and", "to", "in", "is", "it", "you", "that", "he", "was", "for", "on", "are", "with", "as",
    "his", "they", "be", "at", "one", "have", "this", "from", "or", "had", "by", "hot", "but", "some", "what",
    "there", "we", "can", "out", "other", "were", "all", "your", "when", "up", "use", "word", "how", "said", "an",
    "each", "she", "which", "do", "their", "time", "if", "will", "way", "about", "many", "then", "them", "would",
]  # fmt: skip

Colour = tuple[int, int, int]


def pictures_without_digit(seed: int, count: int) -> Iterator[Photograph]:
    """Render `count` pictures, of each kind in turn. The k-th depends only on (seed, k). The label is -1."""
    for k in range(count):
        kind = list(KINDS)[k % len(KINDS)]
        random = np.random.default_rng([seed, k])
        yield Photograph(_taken(KINDS[kind](random), random), -1, {"kind": kind})


def pictures_of_several(
    images: np.ndarray, seed: int, count: int, gap_pixels: tuple[int, int] = (4, 14)
) -> Iterator[Photograph]:
    """Render `count` photographs of two or three digits side by side; `label` is how many.

    Args:
        images: uint8 [N, 28, 28], the digits to draw from.
        seed: with the number of the picture it determines everything.
        count: number of pictures.
        gap_pixels: least distance between two digits and one more than the largest; a digit is 20 high.
    """
    for k in range(count):
        random = np.random.default_rng([seed, k])
        digits = 2 + k % 2
        parts: list[np.ndarray] = []
        for image in images[random.integers(0, len(images), digits)]:
            columns = np.flatnonzero(image.any(axis=0))
            cropped = image[:, columns[0] : columns[-1] + 1]
            gap = np.zeros((28, int(random.integers(*gap_pixels))), np.uint8)
            down = np.roll(cropped, int(random.integers(-2, 3)), axis=0)
            parts += [gap, down] if parts else [down]
        line = np.pad(np.concatenate(parts, axis=1), 4)
        yield photograph(line, digits, random, min_longer_pixels=60 * digits, min_share=0.6)


def _size(random: np.random.Generator) -> tuple[int, int]:
    longer = round(float(np.exp(random.uniform(np.log(60), np.log(1200)))))
    shorter = max(40, round(longer * random.uniform(0.6, 1)))
    return (longer, shorter) if random.random() < 0.5 else (shorter, longer)


def _paper_and_ink(random: np.random.Generator) -> tuple[Colour, Colour]:
    paper = random.integers(170, 256) - random.integers(0, 30, 3)
    ink = random.integers(0, 90, 3)
    if random.random() < 0.25:
        paper, ink = ink, paper
    return tuple(paper.tolist()), tuple(ink.tolist())  # type: ignore[return-value]


def _plain(random: np.random.Generator) -> np.ndarray:
    """One colour, in light that fades to a side or to the corners, or with the soft edge of a shadow."""
    height, width = _size(random)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = random.uniform(0, 2 * np.pi)
    across = x * np.cos(angle) + y * np.sin(angle)
    light = np.ones((height, width))
    kind = random.integers(0, 4)
    if kind == 1:
        light -= random.uniform(0.1, 0.6) * (0.5 + across / 3)
    elif kind == 2:
        light -= random.uniform(0.1, 0.5) * (x**2 + y**2) / 2
    elif kind == 3:
        light -= random.uniform(0.1, 0.5) / (
            1 + np.exp((across - random.uniform(-0.6, 0.6)) / random.uniform(0.02, 0.3))
        )
    return light[..., np.newaxis] * random.uniform(30, 255, 3)


def _texture(random: np.random.Generator) -> np.ndarray:
    height, width = _size(random)
    y, x = np.mgrid[:height, :width].astype(float)
    scale = max(height, width) / random.uniform(3, 60)
    angle = random.uniform(0, np.pi)
    along, across = (x * np.cos(a) + y * np.sin(a) for a in (angle, angle + np.pi / 2))
    kind = random.integers(0, 6)
    if kind == 0:  # clouds, plaster, crumpled paper
        values = sum(_cloud(height, width, scale / 2**k, random) / 2**k for k in range(4))
    elif kind == 1:  # wood
        bent = along + scale * _cloud(height, width, 3 * scale, random)
        values = np.sin(2 * np.pi * bent / scale) + 0.3 * _cloud(height, width, 2, random)
    elif kind == 2:  # cloth, brick
        values = np.sign(np.sin(np.pi * along / scale)) * np.sign(np.sin(np.pi * across / scale))
    elif kind == 3:  # stripes
        values = np.sin(2 * np.pi * along / scale)
    elif kind == 4:  # gravel, leaves
        values = np.sign(_cloud(height, width, scale / 2, random) - random.uniform(-0.5, 0.5))
    else:  # noise
        values = random.standard_normal((height, width))
    low, high = random.uniform(0, 255, 3), random.uniform(0, 255, 3)
    share = (values - values.min()) / (np.ptp(values) + 1e-9)
    return low + (high - low) * random.uniform(0.2, 1) * share[..., np.newaxis]


def _cloud(height: int, width: int, scale: float, random: np.random.Generator) -> np.ndarray:
    scale = max(scale, 1.0)
    coarse = random.standard_normal((int(height / scale) + 3, int(width / scale) + 3))
    rows, columns = np.arange(height) / scale, np.arange(width) / scale
    return ndimage.map_coordinates(coarse, np.meshgrid(rows, columns, indexing="ij"), order=1)


def _ruled(random: np.random.Generator) -> np.ndarray:
    """Lined or squared paper that nothing is written on."""
    height, width = _size(random)
    paper, ink = _paper_and_ink(random)
    picture = np.full((height, width, 3), paper, float)
    y, x = np.mgrid[:height, :width]
    period, tilt = min(height, width) * random.uniform(0.08, 0.3), np.radians(random.uniform(-6, 6))
    for angle in (tilt, tilt + np.pi / 2)[: int(random.integers(1, 3))]:
        distance = (y * np.cos(angle) + x * np.sin(angle)) % period
        picture[distance < max(1, 0.03 * period)] = 0.5 * np.array(paper) + 0.5 * np.array(ink)
    return picture


def _text(random: np.random.Generator) -> np.ndarray:
    """A paragraph, a line or a word of print."""
    height, width = _size(random)
    height, width = max(height, 120), max(width, 120)
    paper, ink = _paper_and_ink(random)
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    kind = random.choice(["paragraph", "line", "word"], p=[0.6, 0.25, 0.15])
    per_line = {"paragraph": random.integers(15, 60), "line": random.integers(14, 40), "word": random.integers(5, 10)}[
        kind
    ]
    size = max(7, int(width / per_line * 1.7))
    font = ImageFont.truetype(str(random.choice(_fonts())), size)
    top, bottom = (size, height - size) if kind == "paragraph" else (height // 3, height // 3 + 1)
    while top < bottom:
        if kind == "word":
            line = str(random.choice([word for word in WORDS if len(word) > 4]))
        else:
            line = " ".join(random.choice(WORDS, 2 + per_line // 4))[:per_line]
        draw.text((size, top), line, fill=ink, font=font)
        top += round(1.4 * size)
    return np.asarray(image.rotate(random.uniform(-4, 4), Image.Resampling.BICUBIC, fillcolor=paper), float)


def _fonts() -> list[Path]:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [folder / f"DejaVu{name}.ttf" for name in ("Sans", "Serif", "SansMono", "Sans-Bold", "Serif-Italic")]


def _drawn_face(random: np.random.Generator) -> np.ndarray:
    """A round outline with eyes and a mouth, and sometimes a nose, ears or hair."""
    height, width = _size(random)
    paper, ink = _paper_and_ink(random)
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    radius = min(height, width) * random.uniform(0.25, 0.45)
    x, y = width * random.uniform(0.45, 0.55), height * random.uniform(0.45, 0.55)
    pen = max(1, round(radius * random.uniform(0.04, 0.14)))
    tall = random.uniform(0.9, 1.25)

    def oval(at: tuple[float, float], size: tuple[float, float], **options: object) -> None:
        draw.ellipse([at[0] - size[0], at[1] - size[1], at[0] + size[0], at[1] + size[1]], **options)  # type: ignore[arg-type]

    oval((x, y), (radius, radius * tall), outline=ink, width=pen)
    eye, apart = radius * random.uniform(0.07, 0.16), radius * random.uniform(0.3, 0.45)
    filled = random.random() < 0.6
    for side in (-1, 1):
        options = {"fill": ink} if filled else {"outline": ink, "width": pen}
        oval((x + side * apart, y - 0.3 * radius), (eye, eye * random.uniform(1, 1.5)), **options)
        if random.random() < 0.3:
            oval((x + side * 1.12 * radius, y), (0.14 * radius, 0.25 * radius), outline=ink, width=pen)
    smile = radius * random.uniform(0.4, 0.6)
    start = random.choice([20, 200])
    draw.arc(
        [x - smile, y + 0.1 * radius, x + smile, y + 0.1 * radius + smile], start, start + 140, fill=ink, width=pen
    )
    if random.random() < 0.5:
        draw.line(
            [(x, y - 0.1 * radius), (x - 0.1 * radius, y + 0.2 * radius), (x, y + 0.2 * radius)], fill=ink, width=pen
        )
    if random.random() < 0.3:
        for k in range(9):
            draw.line(
                [(x + (k - 4) * radius / 6, y - 0.9 * radius * tall), (x + (k - 4) * radius / 5, y - 1.3 * radius)],
                fill=ink, width=pen,
            )  # fmt: skip
    return np.asarray(image, float)


def _shaded_face(random: np.random.Generator) -> np.ndarray:
    """A portrait in soft light: skin, hair, eyes, brows, nose, mouth, shoulders."""
    height, width = _size(random)
    image = Image.new("RGB", (width, height), tuple(random.integers(40, 230, 3).tolist()))
    draw = ImageDraw.Draw(image)
    radius = min(height, width) * random.uniform(0.22, 0.38)
    x, y = width / 2, height * random.uniform(0.42, 0.52)
    skin = (np.array([235, 190, 160]) * random.uniform(0.35, 1)).astype(int)
    hair = tuple((skin * random.uniform(0.15, 0.6)).astype(int).tolist())

    def oval(dx: float, dy: float, rx: float, ry: float, colour: tuple[int, ...]) -> None:
        box = [x + (dx - rx) * radius, y + (dy - ry) * radius, x + (dx + rx) * radius, y + (dy + ry) * radius]
        draw.ellipse(box, fill=colour)

    oval(0, 2.4, 1.7, 1.2, tuple(random.integers(20, 230, 3).tolist()))
    oval(0, -0.25, 1.08, 1.25, hair)
    oval(0, 0, 0.85, 1.15, tuple(skin.tolist()))
    dark = tuple((skin * 0.35).astype(int).tolist())
    for side in (-0.35, 0.35):
        oval(side, -0.2, 0.17, 0.08, (235, 235, 230))
        oval(side, -0.2, 0.07, 0.08, dark)
        oval(side, -0.42, 0.22, 0.05, hair)
    oval(0, 0.2, 0.12, 0.07, tuple((skin * 0.75).astype(int).tolist()))
    oval(0, 0.6, 0.32, 0.09, (int(skin[0] * 0.8), int(skin[1] * 0.5), int(skin[2] * 0.5)))
    light = np.linspace(random.uniform(0.6, 1), random.uniform(0.6, 1), width)[np.newaxis, :, np.newaxis]
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius * 0.03)), float) * light


def _taken(picture: np.ndarray, random: np.random.Generator) -> bytes:
    noise = random.choice([0.0, random.uniform(0.5, 8)])
    pixels = (picture + noise * random.standard_normal(picture.shape)).clip(0, 255).round().astype(np.uint8)
    file = io.BytesIO()
    if random.random() < 0.6:
        Image.fromarray(pixels).save(file, "JPEG", quality=int(random.integers(40, 96)))
    else:
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


KINDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "plain": _plain,
    "texture": _texture,
    "ruled paper": _ruled,
    "text": _text,
    "drawn face": _drawn_face,
    "shaded face": _shaded_face,
}
"""From the name of each kind to its function, which returns a picture, float [H, W, 3], 0 to 255."""
