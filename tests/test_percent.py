"""Percentages as people read them."""

import pytest

from percent import confidence_percent, percent


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.98765, 2, "98.77 %"),
        (0.9996, 1, ">99.9 %"),
        (0.99999, 2, ">99.99 %"),
        (1.0, 2, "100.00 %"),
        (0.0, 2, "0.00 %"),
        (float("nan"), 2, "-"),
    ],
)
def test_percentages_have_one_style_and_never_round_up_to_certainty(share: float, digits: int, text: str) -> None:
    assert percent(share, digits) == text


@pytest.mark.parametrize(
    ("confidence", "text"), [(0.125, "12.5 %"), (0.9994, "99.9 %"), (0.99999, ">99.9 %"), (1.0, ">99.9 %")]
)
def test_no_confidence_is_shown_as_certainty(confidence: float, text: str) -> None:
    assert confidence_percent(confidence) == text
