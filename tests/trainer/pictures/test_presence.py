"""How many digits a picture shows, and where. test_normalize.py has the digits in scenes, and
`python -m benchmarks.pictures` measures both on many pictures."""

import numpy as np
import pytest
import tensorflow as tf

from testbed.counts import KINDS, pictures_without_digit
from testbed.presence import likeness
from tests.trainer.pictures.test_normalize import file_of, seven
from trainer.data.optdigits import read_optdigits
from trainer.pictures.presence import Traits, preparation_doubt


def test_the_box_of_a_drawn_digit_is_where_it_was_drawn(normalize_files) -> None:
    small = np.pad(seven(), ((300, 0), (0, 240), (0, 0)), mode="edge")
    light_on_dark = 255 - seven()
    result = normalize_files(*map(file_of, (seven(), small, light_on_dark)))
    assert result.found.numpy().tolist() == [1, 1, 1]
    expected = [[0.2, 0.25, 0.8, 0.7], [0.6, 0.125, 0.9, 0.35], [0.2, 0.25, 0.8, 0.7]]
    np.testing.assert_allclose(result.box.numpy(), expected, atol=0.06)


def test_the_box_of_a_drawing_that_touches_its_rim_lies_within_it(normalize_files) -> None:
    cut = seven(paper=255, ink=0)[55:245, 55:170]
    result = normalize_files(file_of(cut))
    assert result.found.numpy().tolist() == [1]
    np.testing.assert_allclose(result.box.numpy(), [[0, 0, 1, 1]], atol=0.06)


@pytest.mark.parametrize("count", [2, 3])
def test_digits_side_by_side_are_counted(normalize_files, count) -> None:
    side_by_side = np.concatenate([seven(pen=20)] * count, axis=1)
    assert normalize_files(file_of(side_by_side)).found.numpy().tolist() == [count]


def test_an_image_in_mnist_form_shows_one_digit_unless_it_is_blank(normalize_files) -> None:
    images = read_optdigits()[1].images[:20]
    result = normalize_files(*map(file_of, images), file_of(np.zeros((28, 28), np.uint8)))
    assert result.found.numpy().tolist() == [1] * 20 + [0]


@pytest.mark.parametrize("shade", [0, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1, 3), (28, 28, 3), (300, 400, 3)])
def test_a_blank_picture_shows_no_digit_and_has_no_box(normalize_files, shade, shape) -> None:
    result = normalize_files(file_of(np.full(shape, shade, np.uint8)))
    assert result.found.numpy().tolist() == [0]
    assert not result.box.numpy().any()


def test_a_file_that_is_not_a_picture_shows_no_digit(normalize_files) -> None:
    assert normalize_files(b"text").found.numpy().tolist() == [0]


def test_most_pictures_of_each_kind_without_a_digit_show_none(normalize_files) -> None:
    rendered = list(pictures_without_digit(seed=55, count=10 * len(KINDS)))
    found = normalize_files(*(one.encoded for one in rendered)).found.numpy()
    for kind in KINDS:
        assert (found[[one.nuisances["kind"] == kind for one in rendered]] == 0).sum() >= 8, kind


def test_a_grey_shadow_is_doubtful_and_a_drawn_digit_or_an_image_in_mnist_form_is_not(normalize_files) -> None:
    in_form, drawn = normalize_files(file_of(read_optdigits()[1].images[0]), file_of(seven())).doubt.numpy()
    assert in_form == 0
    assert drawn < 0.01
    of_digit = Traits(*normalize_files(file_of(seven())).traits.numpy()[0])
    traits = np.array(of_digit._replace(shade=0.05, sharpness=0.3), np.float32)
    edge_of_shadow = np.zeros((28, 28), np.uint8)
    edge_of_shadow[4:24, 8:20] = np.linspace(40, 160, 12)
    (doubt,) = preparation_doubt(tf.constant(edge_of_shadow[np.newaxis]), tf.constant(traits[np.newaxis])).numpy()
    assert doubt > 20 * drawn


def test_likeness_ignores_small_moves() -> None:
    one, other = read_optdigits()[1].images[:2]
    alike = likeness(np.stack([one, one, one]), np.stack([one, np.roll(one, (2, -1), (0, 1)), other]))
    assert alike[:2].min() > 0.99
    assert alike[2] < 0.95
