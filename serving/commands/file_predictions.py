"""Files to predictions, in the order of the files.

Pictures and arrays are sent to different signatures; their predictions are merged into one list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving.client.client import DigitClient
from serving.client.errors import InvalidRequestError
from serving.client.results import UNKNOWN, PicturePrediction, Prediction
from serving.commands.inputs import can_be_read_again, read_input


@dataclass(frozen=True, kw_only=True, eq=False)
class FilePrediction:
    """The prediction for one picture file, or for one image of an array file."""

    file: str
    index: int
    """Index of the image in its file; 0 for a picture."""
    name: str
    """The file, with the index if the file holds several images."""
    prediction: Prediction
    is_sure: bool
    """Whether the confidence reaches `--min-confidence` and the picture shows one digit."""
    picture: Path | bytes | None
    """The picture file, or its content if it can be read only once; None for an image of an array."""
    network_input: np.ndarray
    """uint8 [28, 28], 0 = paper, 255 = ink."""
    problem: str = ""
    """Why the model cannot use the picture; empty if it can."""
    found: int | None = None
    """How many digits stand side by side in the picture; None for an array or if the model version does not count them."""

    @property
    def digit_text(self) -> str:
        """The digit as people read it: "not sure (4?)" for a low confidence, "none found" where there is no digit."""
        if self.found == 0:
            return "none found"
        if self.found and self.found > 1:
            return f"{self.found} digits ({self.prediction.digit}?)"
        return str(self.prediction.digit) if self.is_sure else f"not sure ({self.prediction.digit}?)"


def predict_files(paths: Sequence[Path], client: DigitClient, *, min_confidence: float) -> list[FilePrediction]:
    """Predict all images of all files, in order. Every file is read and checked before the first request is sent.

    Pictures are not kept in memory: each is read again for its request, unless it can be read only once.

    Raises:
        OSError, ValueError: if a file cannot be read, or if a model version without the output `problem` cannot use it;
            the message names it.
        ServingError: if a request fails for another reason.
    """
    pictures: dict[Path, Path | bytes] = {}
    arrays: dict[Path, np.ndarray] = {}
    for path in paths:
        content = read_input(path)
        if isinstance(content, bytes):
            pictures[path] = path if can_be_read_again(path) else content
        else:
            arrays[path] = content
    by_path = {
        **_predict_pictures(pictures, client, min_confidence),
        **_predict_arrays(arrays, client, min_confidence),
    }
    return [one for path in paths for one in by_path[path]]


def _predict_pictures(
    pictures: Mapping[Path, Path | bytes], client: DigitClient, min_confidence: float
) -> dict[Path, list[FilePrediction]]:
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
            FilePrediction(
                file=str(path),
                index=0,
                name=str(path),
                prediction=prediction,
                is_sure=prediction.is_one_digit and prediction.confidence >= min_confidence,
                picture=picture,
                network_input=prediction.normalized,
                problem=prediction.problem,
                found=None if prediction.found == UNKNOWN else prediction.found,
            )
        ]
        for (path, picture), prediction in zip(pictures.items(), predictions, strict=True)
    }


def _predict_arrays(
    arrays: Mapping[Path, np.ndarray], client: DigitClient, min_confidence: float
) -> dict[Path, list[FilePrediction]]:
    if not arrays:
        return {}
    predictions = iter(client.predict(np.concatenate([*arrays.values()])))
    return {
        path: [
            FilePrediction(
                file=str(path),
                index=index,
                name=f"{path}[{index}]" if len(images) > 1 else str(path),
                prediction=(prediction := next(predictions)),
                is_sure=prediction.confidence >= min_confidence,
                picture=None,
                network_input=image,
            )
            for index, image in enumerate(images)
        ]
        for path, images in arrays.items()
    }
