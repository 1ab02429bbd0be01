"""The results of the clients: frozen dataclasses of plain values and numpy arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self, overload

import numpy as np


class _Fields:
    """Equality and plain values for dataclasses with numpy arrays."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(np.array_equal(value, getattr(other, name)) for name, value in vars(self).items())

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values and lists, for JSON or a data frame."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction(_Fields):
    """The prediction for one image."""

    digit: int
    """The most probable digit, 0 to 9."""
    confidence: float
    """The probability of `digit`."""
    probabilities: np.ndarray
    """float32 [10]; sums to one."""
    version: int
    """The model version that made the prediction."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions(_Fields):
    """The predictions for N images, in order.

    `len`, an index and iteration work as for a list of `Prediction`s; a slice gives `Predictions`.
    """

    digit: np.ndarray
    """int64 [N]; the most probable digits, 0 to 9."""
    confidence: np.ndarray
    """float32 [N]; the probability of each `digit`."""
    probabilities: np.ndarray
    """float32 [N, 10]; each row sums to one."""
    version: np.ndarray
    """int64 [N]; the model version that made each prediction. Several if the server swapped versions between requests."""

    def __len__(self) -> int:
        return len(self.digit)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Prediction | Self:
        if isinstance(index, slice):
            return type(self)(**{name: array[index] for name, array in vars(self).items()})
        return Prediction(**self._values_at(index))

    def __iter__(self) -> Iterator[Prediction]:
        return (self[index] for index in range(len(self)))

    def _values_at(self, index: int) -> dict[str, Any]:
        rows = {name: array[index] for name, array in vars(self).items()}
        return {name: row.item() if isinstance(row, np.generic) else row for name, row in rows.items()}


UNKNOWN = -1
"""`found` of a model version that does not count the digits of a picture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PicturePrediction(Prediction):
    """The prediction for one picture."""

    normalized: np.ndarray
    """uint8 [28, 28], 0 = paper, 255 = ink; the image that the network was given."""
    problem: str
    """Why the picture cannot be used, such as "cannot be decoded"; empty if it can. With a problem, `digit` is -1."""
    found: int
    """How many digits stand side by side in the picture; 0 for none, `UNKNOWN` from an older model version."""
    box: np.ndarray
    """float32 [4]; top, left, bottom and right of the digit, as shares of the picture's height and width; 0 if unknown."""

    @property
    def is_one_digit(self) -> bool:
        """Whether the picture shows one digit, as far as the model version can tell."""
        return self.found in (1, UNKNOWN)


@dataclass(frozen=True, kw_only=True, eq=False)
class PicturePredictions(Predictions):
    """The predictions for N pictures, in order; as `Predictions`, of `PicturePrediction`s."""

    normalized: np.ndarray
    """uint8 [N, 28, 28], 0 = paper, 255 = ink; the images that the network was given."""
    problem: np.ndarray
    """str [N]; why each picture cannot be used; empty if it can. A model version published before this output existed
    raises an `InvalidRequestError` instead."""
    found: np.ndarray
    """int64 [N]; how many digits stand side by side in each picture; 0 for none, `UNKNOWN` from an older model version."""
    box: np.ndarray
    """float32 [N, 4]; top, left, bottom and right of each digit, as shares of the picture's height and width."""

    @overload
    def __getitem__(self, index: int) -> PicturePrediction: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> PicturePrediction | Self:
        if isinstance(index, slice):
            return super().__getitem__(index)
        return PicturePrediction(**self._values_at(index))

    def __iter__(self) -> Iterator[PicturePrediction]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True, kw_only=True)
class VersionStatus:
    """The state of one model version, as the server reports it."""

    version: int
    state: str
    """START, LOADING, AVAILABLE, UNLOADING or END. Only an AVAILABLE version serves requests."""
    error_code: str
    """OK, or the name of the gRPC status code that loading ended with."""
    error_message: str


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Type and shape of one input or output of a signature."""

    dtype: str
    """TensorFlow's name, such as `DT_UINT8`."""
    shape: tuple[int | None, ...] | None
    """A None inside stands for a dimension of any size; None alone for an unknown rank."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The inputs and outputs of one signature, by tensor name."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """The signatures of the version that serves the client's requests."""

    name: str
    version: int
    signatures: Mapping[str, Signature]
