"""Files to answers, in their order: pictures and arrays go to different signatures, and come back as one list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving.client.client import DigitClient
from serving.client.errors import InvalidRequestError
from serving.client.results import PicturePrediction, Prediction
from serving.commands.inputs import read_input


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What the model says of one picture, or of one image of an array."""

    file: str
    index: int
    """The image's place in its file; 0 for a picture."""
    name: str
    """The file, and the place where the file has several images."""
    prediction: Prediction
    picture: bytes | None
    """The file as it is; None for an image of an array."""
    seen: np.ndarray
    """uint8 [28, 28], 0 = paper, 255 = ink; what the network saw."""


def ask_about(paths: Sequence[Path], client: DigitClient) -> list[Answer]:
    """The answers for all images of all files. Every file is read before the first request: a bad one costs nothing.

    Raises:
        OSError, ValueError: for a file that cannot be used; the message names it.
        ServingError: for a request that failed for another reason.
    """
    inputs = [read_input(path) for path in paths]
    pictures = {path: content for path, content in zip(paths, inputs, strict=True) if isinstance(content, bytes)}
    arrays = {path: content for path, content in zip(paths, inputs, strict=True) if not isinstance(content, bytes)}
    answers = {**_ask_pictures(pictures, client), **_ask_arrays(arrays, client)}
    return [answer for path in paths for answer in answers[path]]


def _ask_pictures(pictures: dict[Path, bytes], client: DigitClient) -> dict[Path, list[Answer]]:
    if not pictures:
        return {}
    try:
        predictions: Sequence[PicturePrediction] = [*client.predict_pictures([*pictures.values()])]
    except InvalidRequestError as error:
        if error.index is None:
            raise
        raise ValueError(f"{[*pictures][error.index]}: this picture {error.problem}") from error
    return {
        path: [
            Answer(
                file=str(path),
                index=0,
                name=str(path),
                prediction=prediction,
                picture=content,
                seen=prediction.normalized,
            )
        ]
        for (path, content), prediction in zip(pictures.items(), predictions, strict=True)
    }


def _ask_arrays(arrays: dict[Path, np.ndarray], client: DigitClient) -> dict[Path, list[Answer]]:
    if not arrays:
        return {}
    predictions = iter(client.predict(np.concatenate([*arrays.values()])))
    return {
        path: [
            Answer(
                file=str(path),
                index=index,
                name=f"{path}[{index}]" if len(images) > 1 else str(path),
                prediction=next(predictions),
                picture=None,
                seen=image,
            )
            for index, image in enumerate(images)
        ]
        for path, images in arrays.items()
    }
