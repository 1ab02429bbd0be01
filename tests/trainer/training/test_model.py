import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.evaluation.metrics import compile_predict
from trainer.training.model import BatchNorm, build_model


@pytest.mark.parametrize("name", ["mlp", "lenet", "cnn"])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_every_network_maps_raw_pixels_to_float32_logits(name: str, precision: str, splits) -> None:
    policy = keras.config.dtype_policy().name
    model = build_model(name, width=0.25, dropout=0.5, precision=precision)
    assert keras.config.dtype_policy().name == policy
    logits = model(splits.test.images[:5])
    assert logits.dtype == tf.float32
    assert logits.shape == (5, 10)
    assert np.ptp(logits.numpy(), axis=0).max() > 0, "different digits have different logits"


def test_pixels_are_scaled_inside_the_model_exactly_once(splits) -> None:
    model = build_model("mlp", width=0.25)
    rescaling = [layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling)]
    assert len(rescaling) == 1
    assert np.asarray(keras.Model(model.input, rescaling[0].output)(splits.test.images)).max() == 1.0


def test_width_adds_parameters_and_dropout_acts_in_training_only() -> None:
    assert build_model("lenet", width=2.0).count_params() > 3 * build_model("lenet").count_params()
    model = build_model("mlp", dropout=0.5)
    image = np.full((1, 28, 28), 128, np.uint8)
    assert np.array_equal(model(image), model(image))
    assert not np.array_equal(model(image, training=True), model(image, training=True))


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


def test_prediction_returns_every_example_once_at_any_batch_size(splits) -> None:
    model = build_model("lenet", width=0.5)
    images = splits.test.images[:101]
    whole = compile_predict(model, batch_size=500)(images)
    assert whole.shape == (101, 10)
    np.testing.assert_allclose(compile_predict(model, batch_size=33)(images), whole, atol=1e-5)
