"""Small but real SavedModels, and the outputs to expect from them.

The "digit" of an image is its mean ink in ten steps, plus `shift`: a test knows every output beforehand, and two versions
with different shifts are distinguished by their outputs. `write_half_plus_two` restates the model of TensorFlow Serving's
own tests.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from serving import contract

INK_STEP = 256 / contract.CLASSES


def expected_digits(images: np.ndarray, *, shift: int = 0) -> np.ndarray:
    """Return the digits of a version with `shift`: int64 [N] for images uint8 [N, 28, 28]."""
    return (images.mean(axis=(1, 2)) // INK_STEP + shift).astype(np.int64) % contract.CLASSES


def images_of(*digits: int) -> np.ndarray:
    """Return one plain grey image per digit, uint8 [N, 28, 28]; with `shift=0` each is recognised as its digit."""
    ink = [round(digit * INK_STEP + INK_STEP / 2) for digit in digits]
    return np.repeat(np.array(ink, np.uint8), 28 * 28).reshape(-1, *contract.IMAGE_SHAPE)


def write_version(base_path: Path | str, version: int | str, *, shift: int = 0, work: int = 0) -> Path:
    """Write a SavedModel under `base_path/version` in one rename and return its path.

    Args:
      base_path: created if missing.
      version: the directory's name; a string if the spelling matters (`"00017"`).
      shift: added to every digit, modulo ten.
      work: matrix products of 256 x 256 in each run, to make it as slow as a test needs.
    """
    base_path = Path(base_path)
    base_path.mkdir(parents=True, exist_ok=True)
    model = _InkModel(shift, work)
    signatures = {contract.SIGNATURE: model.serve, "pictures": model.serve_pictures}
    unfinished = base_path / f".{version}.unfinished"
    tf.saved_model.save(model, str(unfinished), signatures=signatures)
    unfinished.rename(base_path / str(version))
    return base_path / str(version)


def write_half_plus_two(base_path: Path | str, version: int = 1) -> Path:
    """Write a model of y = x / 2 + 2 under `base_path/version` and return its path.

    `serving_default`: x (float32 [-1, 1]) -> y. `with_default`: the same, x is 2.0 if omitted. `regress_x_to_y` and
    `classify_x_to_y`: Examples with the feature x -> y, as value or as score.
    """
    path = Path(base_path) / str(version)
    builder = tf.compat.v1.saved_model.Builder(str(path))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        serialized = tf.compat.v1.placeholder(tf.string, name="tf_example")
        features = tf.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        x = tf.identity(features["x"], name="x")
        half, two = (
            tf.compat.v1.get_variable(name, initializer=value) for name, value in (("half", 0.5), ("two", 2.0))
        )
        y = tf.add(half * x, two, name="y")
        session.run(tf.compat.v1.global_variables_initializer())
        signatures = {
            "serving_default": _signature("predict", {"x": x}, {"y": y}),
            "with_default": _signature("predict", {"x": x}, {"y": y}),
            "regress_x_to_y": _signature("regress", {"inputs": serialized}, {"outputs": y}),
            "classify_x_to_y": _signature("classify", {"inputs": serialized}, {"scores": y}),
        }
        signatures["with_default"].defaults["x"].CopyFrom(tf.make_tensor_proto([[2.0]]))
        builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], signatures)
        builder.save()
    return path


def write_without_variables(base_path: Path | str, version: int) -> Path:
    """Write a version whose `variables` directory is missing and return its path."""
    path = write_version(base_path, f".{version}")
    shutil.rmtree(path / "variables")
    return path.rename(path.with_name(str(version)))


def _signature(method: str, inputs: dict[str, tf.Tensor], outputs: dict[str, tf.Tensor]) -> meta_graph_pb2.SignatureDef:
    info = tf.compat.v1.saved_model.build_tensor_info
    return tf.compat.v1.saved_model.build_signature_def(
        inputs={alias: info(tensor) for alias, tensor in inputs.items()},
        outputs={alias: info(tensor) for alias, tensor in outputs.items()},
        method_name=f"tensorflow/serving/{method}",
    )


def write_two_versions(base_path: Path | str) -> Path:
    """Write version 1 and version 2, which adds one to every digit, and return `base_path`."""
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
        images = tf.ensure_shape(images, [None, *contract.IMAGE_SHAPE])  # the server does not check shapes
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
