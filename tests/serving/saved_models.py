"""Tiny but real SavedModels with the contract's signatures, and what they answer.

The "digit" of an image is its mean ink in ten steps, plus `shift`: so a test knows every answer beforehand, and two
versions written with different shifts can be told apart by what they say.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from serving import contract

INK_STEP = 256 / contract.CLASSES


def expected_digits(images: np.ndarray, *, shift: int = 0) -> np.ndarray:
    """Returns what a version written with `shift` answers: int64 [N] for images uint8 [N, 28, 28]."""
    return (images.mean(axis=(1, 2)) // INK_STEP + shift).astype(np.int64) % contract.CLASSES


def images_of(*digits: int) -> np.ndarray:
    """Returns one plain grey image per digit, uint8 [N, 28, 28]; with `shift=0` each is answered by its digit."""
    ink = [round(digit * INK_STEP + INK_STEP / 2) for digit in digits]
    return np.repeat(np.array(ink, np.uint8), 28 * 28).reshape(-1, *contract.IMAGE_SHAPE)


def write_version(base_path: Path | str, version: int | str, *, shift: int = 0, work: int = 0) -> Path:
    """Writes a SavedModel under `base_path/version` in one rename and returns its path.

    Args:
      base_path: created if missing.
      version: the directory's name; a string where the spelling matters (`"00017"`).
      shift: added to every digit, modulo ten.
      work: matrix products of 256 x 256 done on the side in each run, to make it as slow as a test needs.
    """
    base_path = Path(base_path)
    base_path.mkdir(parents=True, exist_ok=True)
    model = _InkModel(shift, work)
    signatures = {contract.SIGNATURE: model.serve, "pictures": model.serve_pictures}
    unfinished = base_path / f".{version}.unfinished"
    tf.saved_model.save(model, str(unfinished), signatures=signatures)
    unfinished.rename(base_path / str(version))
    return base_path / str(version)


def write_two_versions(base_path: Path | str) -> Path:
    """Writes version 1 and version 2, which adds one to every digit, and returns `base_path`."""
    for version in (1, 2):
        write_version(base_path, version, shift=version - 1)
    return Path(base_path)


class _InkModel(tf.Module):
    def __init__(self, shift: int, work: int):
        super().__init__()
        self.shift = tf.Variable(shift, dtype=tf.int64)
        self.work = work

    @tf.function(input_signature=[tf.TensorSpec([None, *contract.IMAGE_SHAPE], tf.uint8, name=contract.IMAGES)])
    def serve(self, images):
        ink = tf.reduce_mean(tf.cast(images, tf.float32), axis=[1, 2])
        busy = tf.cast(self._busy_zero(), tf.int64)
        digit = (tf.cast(ink // INK_STEP, tf.int64) + self.shift + busy) % contract.CLASSES
        probabilities = tf.nn.softmax(5 * tf.one_hot(digit, contract.CLASSES))
        return {
            contract.PROBABILITIES: probabilities,
            contract.DIGIT: tf.argmax(probabilities, axis=1),
            contract.CONFIDENCE: tf.reduce_max(probabilities, axis=1),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="encoded")])
    def serve_pictures(self, encoded):
        normalized = tf.map_fn(_decode, encoded, fn_output_signature=tf.TensorSpec(contract.IMAGE_SHAPE, tf.uint8))
        return {**self.serve(normalized), "normalized": normalized}

    def _busy_zero(self):
        if not self.work:
            return tf.constant(0.0)
        matrix = tf.random.uniform([256, 256])
        for _ in tf.range(self.work):
            matrix = tf.tanh(matrix @ matrix)
        return tf.cast(tf.reduce_sum(matrix) > 256 * 256, tf.float32)  # no tanh is above 1


def _decode(encoded):
    picture = tf.io.decode_image(encoded, channels=1, expand_animations=False)
    picture = tf.image.resize(tf.ensure_shape(picture, [None, None, 1]), contract.IMAGE_SHAPE, method="nearest")
    return picture[:, :, 0]


if __name__ == "__main__":
    write_two_versions(sys.argv[1])
