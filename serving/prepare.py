"""A picture of one digit as MNIST would have it: the client's own preparation, for servers that take `images` only."""

from __future__ import annotations

import numpy as np
from PIL import Image

from serving.contract import IMAGE_SHAPE

BOX = 20
"""MNIST fits each digit into 20 x 20 pixels and centres it by mass in 28 x 28 (yann.lecun.com/exdb/mnist)."""


def prepare_picture(picture: Image.Image) -> np.ndarray:
    """uint8 [28, 28], 0 = paper, 255 = ink, of a picture of any size and mode, dark on light or light on dark.

    Grey; ink is what differs from the border; cropped to the ink, resized into the box with its aspect kept, centred by
    mass. Transparent pixels count as white. ValueError for a picture of one colour.
    """
    rgba = picture.convert("RGBA")
    grey = np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("L"), np.float32)
    border = np.sort(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
    paper = border[len(border) // 2]  # not np.median: its first call imports numpy.ma, a tenth of the command's time
    ink = np.clip(paper - grey if paper > 127 else grey - paper, 0, None)
    if ink.max() < 16:  # of 255: fainter than this is noise
        raise ValueError("no digit found: nothing in the picture stands out from its border")
    rows, columns = (np.flatnonzero((ink > ink.max() / 5).any(axis)) for axis in (1, 0))
    ink = (ink * (255 / ink.max()))[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(side * BOX / max(ink.shape))) for side in ink.shape)
    small = np.asarray(Image.fromarray(ink.astype(np.uint8)).resize((width, height), Image.Resampling.LANCZOS))
    image = np.zeros(IMAGE_SHAPE, np.uint8)
    top, left = (
        _offset(small.sum(axis, dtype=float), full) for axis, full in ((1, image.shape[0]), (0, image.shape[1]))
    )
    image[top : top + height, left : left + width] = small
    return image


def _offset(mass: np.ndarray, full: int) -> int:
    """Where `mass` begins along an axis of `full` pixels so that its centre is the middle, or as near as it fits."""
    centre = float((mass * (np.arange(len(mass)) + 0.5)).sum() / mass.sum())
    return int(np.clip(round(full / 2 - centre), 0, full - len(mass)))
