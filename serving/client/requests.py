"""Images and pictures to request messages. Nothing here waits for the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import serving.client.wire_pb2 as wire
from serving import contract
from serving.client.config import MAX_MESSAGE_BYTES, ClientConfig
from serving.contract import MAX_PICTURE_BYTES

_NAMES_BYTES, _LENGTH_BYTES = 4096, 8
"""Upper bounds: for the names in a request, and for what the wire format adds to each picture."""


Picture = bytes | bytearray | memoryview | Path
"""The content of a picture file, or its path."""


class Requests:
    """Builds the requests of one client, from its config."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config

    def split(self, images: Any) -> list[np.ndarray]:
        """Split `images`, uint8 [N, 28, 28] or [28, 28], into one uint8 [n, 28, 28] per request.

        Raises:
            ValueError: if `images` is anything else.
        """
        images, size = check_images(images), self._config.chunk_images
        return [images[start : start + size] for start in range(0, len(images), size)]

    def predict(self, images: np.ndarray) -> wire.PredictRequest:
        """Return the request for one of the parts that `split` gives, uint8 [N, 28, 28]."""
        request = wire.PredictRequest(model_spec=self._model_spec())
        request.model_spec.signature_name = contract.SIGNATURE
        tensor = request.inputs[contract.IMAGES]
        tensor.dtype = wire.DT_UINT8
        for size in images.shape:
            tensor.tensor_shape.dim.add(size=size)
        # One copy of the bytes; a typed field would take over a hundred times as long to fill.
        tensor.tensor_content = images.tobytes()
        return request

    def split_pictures(self, pictures: Any) -> list[list[Picture]]:
        """Split pictures into one list per request, limited in number and in bytes.

        Raises:
            OSError: if there is no file at a path.
            ValueError: if `pictures` is anything else, or a picture is above `MAX_PICTURE_BYTES`.
        """
        chunks: list[list[Picture]] = []
        room = 0
        for picture in check_pictures(pictures):
            size = _size_bytes(picture)
            if not chunks or len(chunks[-1]) == self._config.chunk_pictures or size > room:
                chunks.append([])
                room = MAX_MESSAGE_BYTES - _NAMES_BYTES
            chunks[-1].append(picture)
            room -= size + _LENGTH_BYTES
        return chunks

    def predict_pictures(self, pictures: Sequence[Picture]) -> wire.PredictRequest:
        """Return the request for one of the parts that `split_pictures` gives; read the paths in it."""
        request = wire.PredictRequest(model_spec=self._model_spec())
        request.model_spec.signature_name = contract.PICTURES
        tensor = request.inputs[contract.ENCODED]
        tensor.dtype = wire.DT_STRING
        tensor.tensor_shape.dim.add(size=len(pictures))
        for picture in pictures:
            tensor.string_val.append(picture.read_bytes() if isinstance(picture, Path) else bytes(picture))
        return request

    def metadata(self) -> wire.GetModelMetadataRequest:
        """Return the request for the signatures, the only metadata that servers offer."""
        return wire.GetModelMetadataRequest(model_spec=self._model_spec(), metadata_field=["signature_def"])

    def status(self, version: int | None) -> wire.GetModelStatusRequest:
        """Return the request for the state of `version`, or with None of all versions, whatever the config's version."""
        request = wire.GetModelStatusRequest(model_spec=wire.ModelSpec(name=self._config.model_name))
        if version is not None:
            request.model_spec.version.value = version
        return request

    def _model_spec(self) -> wire.ModelSpec:
        spec = wire.ModelSpec(name=self._config.model_name)
        if self._config.version is not None:
            spec.version.value = self._config.version
        if self._config.version_label is not None:
            spec.version_label = self._config.version_label
        return spec


def _size_bytes(picture: Picture) -> int:
    if isinstance(picture, Path):
        return picture.stat().st_size
    return picture.nbytes if isinstance(picture, memoryview) else len(picture)


def check_pictures(pictures: Any) -> Sequence[Picture]:
    """Return `pictures` as a sequence; a single picture becomes a sequence of one.

    Raises:
        ValueError: if `pictures` is anything else; the message says what is wrong and how to fix it.
    """
    if isinstance(pictures, Picture):
        return [pictures]
    if not isinstance(pictures, Sequence) or not all(isinstance(picture, Picture) for picture in pictures):
        raise ValueError(
            "pictures must be a sequence of pathlib.Path, or of bytes that are the content of a file; "
            f"this is {pictures!r:.80}. Use pathlib.Path(...) for a file name."
        )
    if not pictures:
        raise ValueError("there must be at least one picture; the sequence is empty.")
    for index, picture in enumerate(pictures):
        if (size := _size_bytes(picture)) > MAX_PICTURE_BYTES:
            raise ValueError(f"picture {index} has {size} bytes; at most {MAX_PICTURE_BYTES} can be sent.")
    return pictures


def check_images(images: Any) -> np.ndarray:
    """Return `images` as uint8 [N, 28, 28], N at least 1.

    Raises:
        ValueError: if `images` is anything else; the message says what is wrong and how to fix it.
    """
    array = np.asarray(images)
    given = f"{array.dtype} {list(array.shape)}"
    if array.dtype != np.uint8:
        if array.dtype.kind in "fb":
            convert = "Multiply values of 0 to 1 by 255, then use"
        elif array.dtype.kind in "iu" and array.size and array.max() > 255:
            convert = "Scale the values to 0 to 255, then use"
        else:
            convert = "Use"
        raise ValueError(
            f"images must be uint8, 0 = paper, 255 = ink; these are {given}. {convert} .astype(np.uint8). "
            "The model scales them itself."
        )
    if array.shape == contract.IMAGE_SHAPE:
        return array[np.newaxis]
    if array.ndim != 3 or array.shape[1:] != contract.IMAGE_SHAPE:
        height, width = contract.IMAGE_SHAPE
        hint = ""
        if array.ndim == 4 and array.shape[-1] == 1:
            hint = " Drop the last axis: images[..., 0]."
        elif array.shape[-1:] == (height * width,):
            hint = f" Use .reshape(-1, {height}, {width})."
        raise ValueError(f"images must be [N, {height}, {width}] or [{height}, {width}]; these are {given}.{hint}")
    if len(array) == 0:
        raise ValueError(f"there must be at least one image; these are {given}.")
    return array
