"""Digits drawn by the pen: in MNIST's form, the same ones for a seed, and every style usable."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from trainer.data.load import PEN_SEED, load_splits
from trainer.data.pen import draw_digits, draw_style
from trainer.data.skeletons import STYLES, Style
from trainer.data.split import verify

ALL_STYLES = [pytest.param(style, id=f"{digit}: {style.name}") for digit in STYLES for style in STYLES[digit]]


def test_drawn_digits_are_a_sound_split_with_as_many_of_each_digit() -> None:
    digits = draw_digits(500, seed=1)
    verify(digits, "drawn")
    assert np.bincount(digits.labels).tolist() == [50] * 10


def test_drawn_digits_depend_on_the_seed_alone() -> None:
    assert draw_digits(200, seed=1).digest == draw_digits(200, seed=1).digest
    assert draw_digits(200, seed=1).digest != draw_digits(200, seed=2).digest


def test_no_two_drawn_digits_are_equal() -> None:
    digits = draw_digits(500, seed=1)
    assert len({image.tobytes() for image in digits.images}) == len(digits)


@pytest.mark.parametrize("style", ALL_STYLES)
def test_every_style_is_drawn_in_the_form_of_mnist(style: Style) -> None:
    images = draw_style(style, 12, np.random.default_rng(0))
    inked = images > 127
    assert (images.max(axis=(1, 2)) > 200).all()
    assert (inked.mean(axis=(1, 2)) < 0.5).all()
    extents = [max(np.ptp(np.flatnonzero(image.any(axis=axis))) + 1 for axis in (0, 1)) for image in inked]
    assert 18 <= min(extents) <= max(extents) <= 22
    mass = images.astype(float).sum(axis=(1, 2))
    for axis in (1, 2):
        centre = (images.astype(float).sum(axis=3 - axis) * np.arange(28)).sum(axis=1) / mass
        assert np.abs(centre - 13.5).max() < 2, "the mass is near the middle"


def test_stretching_widens_the_strokes_of_a_digit_and_keeps_its_height() -> None:
    stem = [[(0.1, 0.0), (0.1, 1.0)]]
    plain, stretched = (
        draw_style(Style("stem", 1, stem, stem, stretched=stretched), 50, np.random.default_rng(0)) > 127
        for stretched in (False, True)
    )
    strokes = [inked[:, 14].sum(axis=1) for inked in (plain, stretched)]
    assert strokes[1].mean() > 1.3 * strokes[0].mean()
    heights, widths = ([np.ptp(np.flatnonzero(image.any(axis=axis))) + 1 for image in stretched] for axis in (1, 0))
    assert min(heights) >= 18
    assert min(widths) >= 6


@pytest.mark.parametrize("style", ALL_STYLES)
def test_both_forms_of_a_style_have_the_same_strokes(style: Style) -> None:
    def points(form: list) -> list[int]:
        return [1 + sum(one != other for one, other in pairwise(stroke)) for stroke in form]

    assert points(style.first) == points(style.second)
    assert style.weight > 0


def test_the_pen_has_its_share_of_the_training_split_and_of_no_other() -> None:
    plain, mixed = (load_splits("optdigits", Path("unused"), 180, pen_share=share) for share in (0.0, 0.4))
    assert 1 - len(plain.train) / len(mixed.train) == pytest.approx(0.4, abs=0.002)
    assert np.array_equal(mixed.train.images[: len(plain.train)], plain.train.images)
    assert plain.validation.digest == mixed.validation.digest
    assert plain.test.digest == mixed.test.digest


def test_beside_few_training_digits_the_pen_draws_no_rare_style() -> None:
    plain, mixed = (load_splits("optdigits", Path("unused"), 180, pen_share=share) for share in (0.0, 0.4))
    drawn = len(mixed.train) - len(plain.train)
    usual, with_rare = (draw_digits(drawn, PEN_SEED, rare=rare) for rare in (False, True))
    assert {image.tobytes() for image in mixed.train.images[-drawn:]} <= {image.tobytes() for image in usual.images}
    assert usual.digest != with_rare.digest
