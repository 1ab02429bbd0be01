"""The morphology and the quantiles of the preparation are those of SciPy and NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from trainer.pictures.filters import median
from trainer.pictures.morphology import closing, connected_components, contrast, dilate, erode


def test_connected_components_are_those_of_scipy() -> None:
    random = np.random.default_rng(3)
    for density in (0.0, 0.2, 0.4, 0.6, 1.0):
        mask = random.random((40, 50)) < density
        labels, count = connected_components(tf.where(mask), tf.constant(mask.shape, tf.int64))
        expected, expected_count = ndimage.label(mask, np.ones((3, 3)))
        assert count == expected_count
        pairs = set(zip(labels.numpy().tolist(), expected[mask].tolist(), strict=True))
        assert len(pairs) == expected_count


@pytest.mark.parametrize("window", [3, 7])
def test_closing_and_contrast_are_those_of_scipy(window) -> None:
    values = np.random.default_rng(3).random((20, 31), np.float32)
    highest = ndimage.maximum_filter(values, window, mode="constant", cval=-np.inf)
    lowest = ndimage.minimum_filter(values, window, mode="constant", cval=np.inf)
    np.testing.assert_array_equal(contrast(tf.constant(values), window), highest - lowest)
    closed = ndimage.minimum_filter(highest, window, mode="constant", cval=np.inf)
    np.testing.assert_array_equal(closing(tf.constant(values), window), closed)


@pytest.mark.parametrize("window", [3, 9])
def test_dilation_and_erosion_of_a_mask_are_those_of_scipy(window) -> None:
    mask = np.random.default_rng(4).random((20, 31)) < 0.5
    square = np.ones((window, window))
    np.testing.assert_array_equal(dilate(tf.constant(mask), window), ndimage.binary_dilation(mask, square))
    np.testing.assert_array_equal(
        erode(tf.constant(mask), window), ndimage.binary_erosion(mask, square, border_value=1)
    )


def test_the_median_is_that_of_numpy() -> None:
    values = np.random.default_rng(5).random((9, 11), np.float32)
    assert median(tf.constant(values)) == np.median(values)
