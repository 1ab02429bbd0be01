"""The networks and their layers."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.conftest import REPOSITORY
from trainer.training.input_pipeline import ReplicaSlice
from trainer.training.model import BatchNorm, Dropout, build_model, dropout_noise


@pytest.mark.parametrize("name", ["mlp", "lenet", "cnn", "resnet"])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_every_network_maps_raw_pixels_to_float32_logits(name: str, precision: str, splits) -> None:
    policy = keras.config.dtype_policy().name
    model = build_model(name, width=0.25, dropout=0.5, precision=precision)
    assert keras.config.dtype_policy().name == policy
    logits = model(splits.test.images[:5])
    assert logits.dtype == tf.float32
    assert logits.shape == (5, 10)
    assert np.ptp(logits.numpy(), axis=0).max() > 0, "different digits have different logits"


@pytest.mark.parametrize("name", ["mlp", "lenet", "cnn", "resnet"])
def test_layers_have_names_that_say_what_they_are_and_saved_weights_do_not_depend_on_them(
    name: str, tmp_path: Path
) -> None:
    import h5py

    names = [layer.name for layer in build_model(name, width=0.25).layers]
    assert names == [layer.name for layer in build_model(name, width=0.25).layers], "no number counts earlier models"
    assert {name.rstrip("12345678") for name in names} <= {
        "images", "add_channel", "scale", "conv", "norm", "pool", "relu", "add", "flatten", "dense", "dropout", "logits",
    }  # fmt: skip
    model = build_model(name, width=0.25)
    model.save_weights(tmp_path / "model.weights.h5")
    with h5py.File(tmp_path / "model.weights.h5") as file:
        # By class and order, as in the files of versions that left the names to Keras.
        assert {key.rstrip("_1234567") for key in file["layers"]} <= {
            "input_layer", "reshape", "rescaling", "conv2d", "batch_norm", "max_pooling2d", "re_lu", "flatten", "dense",
            "dropout", "add",
        }  # fmt: skip


def test_pixels_are_scaled_inside_the_model_exactly_once(splits) -> None:
    model = build_model("mlp", width=0.25)
    rescaling = [layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling)]
    assert len(rescaling) == 1
    assert np.asarray(keras.Model(model.input, rescaling[0].output)(splits.test.images)).max() == 1.0


def test_width_adds_parameters_and_dropout_acts_in_training_only() -> None:
    assert build_model("lenet", width=2.0).count_params() > 3 * build_model("lenet").count_params()
    model = build_model("mlp", dropout=0.5)
    images = np.full((8, 28, 28), 128, np.uint8)
    assert np.array_equal(model(images), model(images))
    with dropout_noise(ReplicaSlice(0, 8), tf.constant(3)):
        assert not np.allclose(model(images), model(images, training=True))
    with pytest.raises(RuntimeError, match="dropout_noise"):
        model(images, training=True)


def test_dropout_drops_its_share_by_seed_step_and_position() -> None:
    ones = tf.ones([64, 500])

    def dropped(part: ReplicaSlice, step: int = 3, index: int = 0) -> np.ndarray:
        with dropout_noise(part, tf.constant(step)):
            return Dropout(0.3, index)(ones[part.positions], training=True).numpy()

    complete = dropped(ReplicaSlice(0, 64))
    assert (complete == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert complete.max() == pytest.approx(1 / 0.7)
    assert complete.mean() == pytest.approx(1.0, abs=0.02)
    for replica in range(2):
        part = ReplicaSlice(0, 64, replica, 2)
        assert np.array_equal(dropped(part), complete[part.positions])
    for other in (dropped(ReplicaSlice(1, 64)), dropped(ReplicaSlice(0, 64), 4), dropped(ReplicaSlice(0, 64), 3, 1)):
        assert not np.array_equal(other, complete)


def test_the_moving_variance_is_the_same_with_and_without_the_fused_kernel() -> None:
    inputs = tf.random.stateless_normal([4, 2, 2, 5], seed=[1, 2], stddev=3.0)
    fused, general = BatchNorm(momentum=0.9), BatchNorm(momentum=0.9, dtype="float64")  # there is no float64 kernel
    for layer, x in ((fused, inputs), (general, tf.cast(inputs, tf.float64))):
        layer(x, training=True)
    np.testing.assert_allclose(fused.moving_variance, general.moving_variance, rtol=1e-5)


def test_the_user_s_keras_config_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text('{"backend": "jax", "image_data_format": "channels_first"}')
    code = (
        "import trainer\nfrom trainer.training.model import build_model\nimport keras\n"
        "assert keras.backend.backend() == 'tensorflow'\n"
        "assert [layer.output.shape[-1] for layer in build_model('cnn').layers if 'conv' in layer.name][1:3] == [32, 64]\n"
        "assert keras.config.image_data_format() == 'channels_first'\n"
    )
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("training", [True, False])
def test_the_fused_batch_norm_computes_the_same_as_keras(training: bool) -> None:
    inputs = tf.random.stateless_normal([64, 7, 7, 5], seed=[1, 2], mean=2.0, stddev=3.0)
    ours, theirs = BatchNorm(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    for _ in range(3):
        outputs = ours(inputs, training=training), theirs(inputs, training=training)
        np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)
    for mine, reference in zip(ours.weights, theirs.weights, strict=True):
        # The fused kernel keeps the unbiased variance, N / (N - 1) times Keras's.
        np.testing.assert_allclose(mine, reference, rtol=1e-3)
