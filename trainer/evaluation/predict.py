"""The prediction of a model, the same one in validation, evaluation, the gate and the exported signatures."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from serving.contract import CLASSES, IMAGE_SHAPE

Predict = Callable[[np.ndarray], np.ndarray]
"""Images uint8 [N, 28, 28] -> logits float32 [N, 10]."""

SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""Rows and columns by which an unsure image is moved, in pixels."""
UNSURE = 0.97
"""Below this confidence the moved images count. On validation data, a higher limit gained nothing."""
FULLY_UNSURE = 0.95
"""Below this confidence they count in full. In between, their weight grows evenly, so no prediction jumps."""


def compile_predict(model: keras.Model, batch_size: int = 500) -> Predict:
    """Return a function from images to logits. It compiles once and uses the model's current weights."""

    @tf.function(input_signature=[tf.TensorSpec((None, *IMAGE_SHAPE), tf.uint8)], autograph=False)
    def forward(images: tf.Tensor) -> tf.Tensor:
        return predict_logits(model, images)

    def predict(images: np.ndarray) -> np.ndarray:
        batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
        return np.concatenate([forward(batch).numpy() for batch in batches])

    return predict


def predict_logits(model: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """Return the model's logits, float32 [N, 10], of images uint8 [N, 28, 28].

    Where the model is unsure, they are the mean of the logits of the image and of the same image moved by one pixel to
    each side. This test-time augmentation makes fewer mistakes, and fewer confident ones. The network runs five times,
    but only on a few images in a hundred (`benchmarks/prediction_averages.py`).
    """
    logits = model(images, training=False)
    confidence = tf.reduce_max(tf.nn.softmax(logits), axis=1)
    unsure = tf.where(confidence < UNSURE)  # int64 [M, 1]

    def average() -> tf.Tensor:
        before = tf.gather_nd(logits, unsure)
        moved = _moved(tf.gather_nd(images, unsure))
        of_moved = tf.reshape(model(moved, training=False), [len(SHIFTS), -1, CLASSES])
        mean = (before + tf.reduce_sum(of_moved, axis=0)) / (1 + len(SHIFTS))
        weight = tf.minimum((UNSURE - tf.gather_nd(confidence, unsure)) / (UNSURE - FULLY_UNSURE), 1.0)
        return tf.tensor_scatter_nd_update(logits, unsure, before + weight[:, tf.newaxis] * (mean - before))

    # oneDNN's convolutions return a wrong shape for no images.
    return tf.cond(tf.size(unsure) > 0, average, lambda: logits)


def _moved(images: tf.Tensor) -> tf.Tensor:
    """Return every image moved each way: uint8 [M, 28, 28] -> [4 * M, 28, 28]. What moves in is paper."""
    height, width = IMAGE_SHAPE
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1]])
    parts = [padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width] for down, right in SHIFTS]
    return tf.concat(parts, axis=0)
