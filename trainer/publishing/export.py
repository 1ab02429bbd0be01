"""A trained model -> the SavedModel that TensorFlow Serving loads: signatures, warm-up records, metadata.

Keras 3 wraps its variables, so TensorFlow does not track the variables of a model that is an attribute of a module. The
server loads through the v1 Session path, which then fails ("Could not find variable"). The module therefore holds the
wrapped variables themselves. `keras.export.ExportArchive` holds them too, but writes each of them twice.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from serving.contract import (
    BOX,
    CLASSES,
    CONFIDENCE,
    DIGIT,
    DOUBT,
    ENCODED,
    FOUND,
    IMAGE_SHAPE,
    IMAGES,
    MODEL_NAME,
    NORMALIZED,
    PICTURES,
    PROBABILITIES,
    PROBLEM,
    SIGNATURE,
)
from trainer.errors import ConfigError
from trainer.evaluation.predict import predict_logits
from trainer.pictures.normalize import normalize
from trainer.publishing.verify_export import WARM_UP_BATCH_SIZES, WARM_UP_FILE

METADATA_FILE = "digits.json"


def export_model(
    model: keras.Model,
    folder: Path,
    *,
    images: np.ndarray,
    metadata: dict[str, Any],
    model_name: str = MODEL_NAME,
    temperature: float = 1.0,
) -> None:
    """Write a SavedModel to `folder`, which must not exist yet: readable for all users, flushed to the disk.

    Args:
        model: a plain model outside any strategy; uint8 [N, 28, 28] -> logits [N, 10].
        folder: where to write.
        images: real examples for the warm-up records, uint8 [N, 28, 28].
        metadata: JSON-ready facts about the model, kept beside the warm-up records.
        model_name: the name under which the server serves it.
        temperature: divides the logits, so that a confidence is the share of correct predictions.

    Raises:
        OSError: the files could not be written.
    """

    @tf.function(input_signature=[tf.TensorSpec((None, *IMAGE_SHAPE), tf.uint8, name=IMAGES)], autograph=False)
    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        # TensorFlow Serving does not compare shapes with the signature; [N, 28, 28, 1] would get wrong digits.
        images = tf.ensure_shape(images, (None, *IMAGE_SHAPE))
        # For an image without any ink, all digits are equally probable.
        inked = tf.cast(tf.reduce_any(images > 0, axis=[1, 2]), tf.float32)[:, tf.newaxis]
        probabilities = tf.nn.softmax(inked * predict_logits(model, images) / temperature)
        return {
            PROBABILITIES: probabilities,
            DIGIT: tf.argmax(probabilities, axis=1),
            CONFIDENCE: tf.reduce_max(probabilities, axis=1),
        }

    # AutoGraph would take longer than all the rest, and finds nothing to do.
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=ENCODED)], autograph=False)
    def answer_pictures(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        pictures = normalize(tf.ensure_shape(encoded, [None]))
        outputs = answer(pictures.images)
        doubt = pictures.doubt[:, tf.newaxis]
        # An image that does not show the written digit makes all ten digits equally probable.
        probabilities = (1 - doubt) * outputs[PROBABILITIES] + doubt / CLASSES
        is_usable = pictures.problem == ""
        return {
            PROBABILITIES: tf.where(is_usable[:, tf.newaxis], probabilities, 0.0),
            DIGIT: tf.where(is_usable, outputs[DIGIT], -1),
            CONFIDENCE: tf.where(is_usable, tf.reduce_max(probabilities, axis=1), 0.0),
            NORMALIZED: pictures.images,
            PROBLEM: pictures.problem,
            FOUND: tf.where(is_usable, pictures.found, 0),
            DOUBT: tf.where(is_usable, pictures.doubt, 0.0),
            BOX: tf.where(is_usable[:, tf.newaxis], pictures.box, 0.0),
        }

    module = tf.Module(name=MODEL_NAME)
    module.weights = [weight.value for weight in model.weights]
    module.answer, module.answer_pictures = answer, answer_pictures
    extra = folder / "assets.extra"
    try:
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: answer, PICTURES: answer_pictures})
        extra.mkdir()
        _write_warm_up(extra / WARM_UP_FILE, images, model_name)
    except tf.errors.OpError as error:
        # TensorFlow's writers report a full disk as an OpError.
        raise OSError(f"cannot write the SavedModel to {folder}: {error.message}") from error
    (extra / METADATA_FILE).write_text(json.dumps(metadata, indent=2, allow_nan=False) + "\n")
    _make_readable(folder)
    sync_tree(folder)


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata that `export_model` wrote to `folder`; empty for a model written by another program.

    Raises:
        ValueError: the file is damaged; the message names it.
        OSError: it cannot be read.
    """
    path = folder / "assets.extra" / METADATA_FILE
    if not path.is_file():
        return {}
    try:
        metadata = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"{path} is damaged: expected one JSON object")
    return metadata


def read_weights(folder: Path) -> list[np.ndarray]:
    """Return the weights of a model that `export_model` wrote to `folder`, in the order of the model's weights.

    Raises:
        ConfigError: the folder holds no such model, or it cannot be read.
    """
    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        count = sum(name.startswith("weights/") for name in reader.get_variable_to_shape_map())
        return [reader.get_tensor(f"weights/{i}/.ATTRIBUTES/VARIABLE_VALUE") for i in range(count)]
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{folder}: its weights cannot be read: {error}") from error


def sync_tree(folder: Path) -> None:
    """Flush `folder` and all its content to the disk, so that a power cut cannot keep a rename and lose the content."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _make_readable(folder: Path) -> None:
    """Let all users read the files, whatever the umask: the server often runs as another one."""
    for path in (*folder.rglob("*"), folder):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o555 if path.is_dir() else 0o444))


def _write_warm_up(path: Path, images: np.ndarray, model_name: str) -> None:
    # Imported here because these protos take seconds to load.
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    files = np.array([tf.io.encode_png(image[..., np.newaxis]).numpy() for image in images], object)
    examples = {SIGNATURE: (IMAGES, images), PICTURES: (ENCODED, files)}
    with tf.io.TFRecordWriter(str(path)) as records:
        for signature, sizes in WARM_UP_BATCH_SIZES.items():
            name, values = examples[signature]
            for size in sizes:
                request = predict_pb2.PredictRequest()
                request.model_spec.name = model_name
                request.model_spec.signature_name = signature
                batch = np.resize(values, (size, *values.shape[1:]))
                request.inputs[name].CopyFrom(tf.make_tensor_proto(batch))
                log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
                records.write(log.SerializeToString())
