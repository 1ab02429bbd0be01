"""The networks: raw uint8 images in, logits out. Pixels are scaled here and nowhere else.

To add a network, write a function like the four below, and name it in `build_model` and in `ModelSettings.model`. Every
layer has a name, for TensorBoard's graph and histograms. Saved weights are found by their order, not by these names.
"""

import hashlib
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf
from keras import layers

from serving.contract import CLASSES, IMAGE_SHAPE
from trainer.errors import ConfigError
from trainer.settings import ModelSettings
from trainer.training.input_pipeline import ReplicaSlice

Hidden = Callable[[keras.KerasTensor], keras.KerasTensor]


def build_model(name: str, *, width: float = 1.0, dropout: float = 0.0, precision: str = "float32") -> keras.Model:
    """Build a fresh network with random weights: uint8 [N, 28, 28] -> logits float32 [N, 10].

    Args:
        name: "mlp", "lenet", "cnn" or "resnet".
        width: factor on the number of units of every hidden layer.
        dropout: share of activations dropped before the last layers.
        precision: Keras dtype policy of the hidden layers.
    """
    hidden = {"mlp": mlp, "lenet": lenet, "cnn": cnn, "resnet": resnet}[name]
    images = keras.Input(IMAGE_SHAPE, dtype="uint8", name="images")
    # The user's Keras config may have other defaults.
    previous = keras.config.dtype_policy(), keras.config.image_data_format()
    keras.config.set_dtype_policy(precision)
    keras.config.set_image_data_format("channels_last")
    try:
        x = layers.Reshape((*IMAGE_SHAPE, 1), name="add_channel")(images)
        x = layers.Rescaling(1 / 255, name="scale")(x)
        x = hidden(x, width, dropout)
    finally:
        keras.config.set_dtype_policy(previous[0])
        keras.config.set_image_data_format(previous[1])
    logits = layers.Dense(CLASSES, dtype="float64" if precision == "float64" else "float32", name="logits")(x)
    return keras.Model(images, logits, name=name)


def load_model(config: ModelSettings, weights: Path) -> keras.Model:
    """Build the config's network, in float32, with the weights that a run saved in the file `weights`.

    Raises:
        ConfigError: the file is damaged, or holds the weights of another network.
        OSError: it cannot be read.
    """
    model = build_model(config.model, width=config.width, dropout=config.dropout)
    try:
        model.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # of the operating system; h5py's own have no number
        raise ConfigError(
            f"{weights}: is damaged, or holds the weights of another network than --model {config.model} --width "
            f"{config.width:g}; restore the file, or train again with another --run"
        ) from error
    return model


def weights_digest(model: keras.Model) -> str:
    """Return the SHA-256 of all weights, bit for bit."""
    return hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest()


def mlp(x: keras.KerasTensor, width: float, dropout: float) -> keras.KerasTensor:
    """Build two dense ReLU layers of 512 units, each followed by dropout."""
    x = layers.Flatten(name="flatten")(x)
    for index in range(2):
        x = layers.Dense(_units(512, width), activation="relu", name=f"dense{index + 1}")(x)
        x = Dropout(dropout, index, name=f"dropout{index + 1}")(x)
    return x


def lenet(x: keras.KerasTensor, width: float, dropout: float) -> keras.KerasTensor:
    """Build two convolutions and a dense layer: the fastest network to 99 %.

    Pooling comes before the ReLU: the two commute, and the ReLU is then four times cheaper.
    """
    for number, (filters, size) in enumerate(((24, 5), (32, 3)), start=1):
        x = layers.Conv2D(_units(filters, width), size, name=f"conv{number}")(x)
        x = layers.MaxPooling2D(name=f"pool{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(_units(256, width), activation="relu", name="dense")(x)
    return Dropout(dropout, name="dropout")(x)


def cnn(x: keras.KerasTensor, width: float, dropout: float) -> keras.KerasTensor:
    """Build five convolutions with batch norm, two of stride 2: accurate, and trained in a minute on few digits.

    The first layer has a stride: at full resolution it would cost more than all others together. The numbers of filters
    are multiples of 32, the blocks of oneDNN's kernels: batch norm of 72 channels takes ten times as long as of 64.
    """
    shapes = ((32, 5, 2), (32, 3, 1), (64, 3, 2), (64, 3, 1), (64, 3, 1))
    for number, (filters, size, stride) in enumerate(shapes, start=1):
        x = _convolution(x, _units(filters, width), number, size, stride)
        x = layers.ReLU(name=f"relu{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    return Dropout(dropout, name="dropout")(x)


def resnet(x: keras.KerasTensor, width: float, dropout: float) -> keras.KerasTensor:
    """Build eight convolutions with batch norm, six of them in three residual blocks: the most accurate network here."""
    number = 0
    for filters, size, blocks in ((32, 5, 1), (64, 3, 2)):
        number += 1
        x = layers.ReLU(name=f"relu{number}")(_convolution(x, _units(filters, width), number, size, stride=2))
        for _ in range(blocks):
            block = _convolution(x, _units(filters, width), number + 1)
            block = layers.ReLU(name=f"relu{number + 1}")(block)
            block = _convolution(block, _units(filters, width), number + 2)
            number += 2
            x = layers.ReLU(name=f"relu{number}")(layers.Add(name=f"add{number}")([x, block]))
    x = layers.Flatten(name="flatten")(x)
    return Dropout(dropout, name="dropout")(x)


def _convolution(x: keras.KerasTensor, filters: int, number: int, size: int = 3, stride: int = 1) -> keras.KerasTensor:
    """Add a convolution without bias, and batch norm, which has one."""
    convolution = layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=False, name=f"conv{number}")
    return BatchNorm(momentum=0.9, name=f"norm{number}")(convolution(x))


class Dropout(layers.Layer):
    """Dropout whose masks are a function of seed, step and position in the global batch, whatever the number of replicas.

    Keras's Dropout keeps the state of its random numbers in a variable. All replicas and workers have the same copy of it.
    So they would all drop the same activations.
    """

    def __init__(self, rate: float, index: int = 0, name: str | None = None):
        """Drop a share `rate` of the activations; `index` is the layer's number among the dropout layers of its model."""
        super().__init__(name=name)
        self.rate, self.index = rate, index

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or not self.rate:
            return inputs
        noise = getattr(_noise, "source", None)
        if noise is None:
            raise RuntimeError("dropout in training needs its noise: call the model inside dropout_noise(part, step)")
        part, step = noise
        uniform = part.uniform(FIRST_DROPOUT_STREAM + self.index, step, math.prod(inputs.shape[1:]))
        kept = tf.reshape(uniform, tf.shape(inputs)) >= self.rate
        return tf.where(kept, inputs / (1 - self.rate), tf.zeros([], inputs.dtype))


FIRST_DROPOUT_STREAM = 2
"""Streams of noise below this number belong to the augmentation."""

_noise = threading.local()  # each replica is traced in a thread of its own


@contextmanager
def dropout_noise(part: ReplicaSlice, step: tf.Tensor) -> Iterator[None]:
    """Make the dropout layers draw the masks of these positions and this step, until the block ends."""
    _noise.source = part, step
    try:
        yield
    finally:
        del _noise.source


class BatchNorm(layers.BatchNormalization):
    """Keras's batch norm over [N, H, W, C], with the statistics of the global batch.

    The moving variance is the unbiased one, N / (N - 1) times Keras's, whichever way it is computed.

    A single replica uses TensorFlow's fused kernel, which is faster on a CPU (benchmarks/batch_norm.py). Several replicas
    compute the variance around their common mean. Keras's own synchronised form, mean of squares minus square of mean,
    loses digits, and the losses drift from those of a single replica.
    """

    def call(self, inputs: tf.Tensor, training: bool = False, mask: tf.Tensor | None = None) -> tf.Tensor:
        if not training:
            return super().call(inputs, training=False, mask=mask)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas == 1 and inputs.dtype != tf.float64:  # there is no float64 kernel
            outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=inputs, scale=self.gamma, offset=self.beta, mean=[], variance=[], epsilon=self.epsilon
            )
        else:
            x = tf.cast(inputs, self.variable_dtype)
            mean = _mean_over_replicas(tf.reduce_mean(x, axis=[0, 1, 2]), replicas)
            variance = _mean_over_replicas(tf.reduce_mean(tf.square(x - mean), axis=[0, 1, 2]), replicas)
            outputs = tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, self.epsilon)
            outputs = tf.cast(outputs, inputs.dtype)
            count = tf.cast(tf.reduce_prod(tf.shape(x)[:3]) * replicas, variance.dtype)
            variance *= count / tf.maximum(count - 1, 1)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs


def _mean_over_replicas(value: tf.Tensor, replicas: int) -> tf.Tensor:
    if replicas == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, value)


def _units(units: int, width: float) -> int:
    return max(1, round(units * width))
