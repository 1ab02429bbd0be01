from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from trainer.evaluation.predict import FULLY_UNSURE, UNSURE, compile_predict, predict_logits
from trainer.training.model import build_model


def brightness_of_one_pixel(images: tf.Tensor, training: bool) -> tf.Tensor:
    """Stand in for a network: the logit of digit 3 is the pixel at row 14, column 14; the others are 0."""
    assert not training
    assert len(images), "a network must not be called without images: oneDNN's convolutions fail then"
    return tf.cast(images[:, 14, 14], tf.float32)[:, tf.newaxis] / 10 * tf.one_hot([3], 10)


def images_with(**pixels: int) -> np.ndarray:
    """One image with this pixel at the place that the network reads, and with those beside it."""
    places = {"here": (14, 14), "above": (13, 14), "below": (15, 14), "left": (14, 13), "right": (14, 15)}
    images = np.zeros((1, 28, 28), np.uint8)
    for name, value in pixels.items():
        images[(0, *places[name])] = value
    return images


def logit(**pixels: int) -> float:
    model: Any = brightness_of_one_pixel
    return float(predict_logits(model, tf.constant(images_with(**pixels)))[0, 3])


def test_an_unsure_prediction_is_the_mean_of_the_image_and_of_four_moved_ones() -> None:
    assert logit(here=20, above=10, below=30, left=40, right=50) == pytest.approx((2 + 1 + 3 + 4 + 5) / 5)


def test_a_sure_prediction_stays_as_it_is() -> None:
    assert softmax([0, 0, 0, 7.0] + [0] * 6)[3] > UNSURE
    assert logit(here=70, above=250) == 7.0


def test_each_image_of_a_batch_gets_its_own_prediction() -> None:
    model: Any = brightness_of_one_pixel
    batch = [images_with(here=70), images_with(here=20, left=10), images_with(here=90), images_with(here=30, below=5)]
    logits = predict_logits(model, tf.constant(np.concatenate(batch)))[:, 3]
    np.testing.assert_allclose(logits, [7, (2 + 1) / 5, 9, (3 + 0.5) / 5], rtol=1e-6)


def test_a_prediction_does_not_jump_where_the_model_becomes_sure() -> None:
    model: Any = brightness_of_one_pixel

    def mean_logit(scale: float) -> tuple[float, float]:
        """The confidence before and the logit after the mean with four images that have none of the ink."""
        logits = predict_logits(
            lambda images, training: scale * model(images, training), tf.constant(images_with(here=10))
        )
        return float(softmax([0, 0, 0, scale] + [0] * 6)[3]), float(logits[0, 3]) / scale

    shares = [mean_logit(scale) for scale in np.arange(5.0, 6.0, 0.01)]
    assert min(confidence for confidence, _ in shares) < FULLY_UNSURE
    assert max(confidence for confidence, _ in shares) > UNSURE
    assert shares[0][1] == pytest.approx(1 / 5)
    assert shares[-1][1] == pytest.approx(1)
    steps = np.diff([share for _, share in shares])
    assert (steps > -1e-6).all()
    assert steps.max() < 0.02


def test_prediction_returns_every_example_once_at_any_batch_size(splits) -> None:
    model = build_model("lenet", width=0.5)
    images = splits.test.images[:101]
    whole = compile_predict(model, batch_size=500)(images)
    assert whole.shape == (101, 10)
    np.testing.assert_allclose(compile_predict(model, batch_size=33)(images), whole, atol=1e-5)
