"""Every text colour of the pages can be read: a contrast of at least 4.5 (WCAG AA), in light and dark.

Checked here for all pairs, because axe-core cannot judge text in SVG and beside pictures.
"""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
REPORT, DRAWING = REPOSITORY / "trainer/evaluation/page.css", REPOSITORY / "serving/web/page/style.css"

PAIRS = [
    *((REPORT, text, ground) for text in ("ink", "muted", "red", "green") for ground in ("paper", "card")),
    *((DRAWING, text, ground) for text in ("ink", "quiet") for ground in ("ground", "paper")),
    (DRAWING, "accent", "paper"),
    (DRAWING, "warning", "ground"),
    (DRAWING, "warning", "warning-ground"),
]


def colors(style: Path, *, dark: bool) -> dict[str, str]:
    """The CSS variables of the light or the dark scheme: name -> six hexadecimal digits."""
    light_text, dark_text = style.read_text().split("prefers-color-scheme: dark", 1)
    text = light_text + dark_text.partition("}")[0] if dark else light_text
    found = dict(re.findall(r"--([\w-]+): #([0-9a-f]{3}(?:[0-9a-f]{3})?)\b", text))
    return {name: digits if len(digits) == 6 else "".join(2 * one for one in digits) for name, digits in found.items()}


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colours: https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio."""
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    channels = (int(color[at : at + 2], 16) / 255 for at in (0, 2, 4))
    linear = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels)
    return sum(weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("style", "text", "ground"), PAIRS, ids=lambda value: getattr(value, "stem", value))
def test_text_stands_out_from_its_ground(style: Path, text: str, ground: str, dark: bool) -> None:
    found = colors(style, dark=dark)
    assert contrast(found[text], found[ground]) >= 4.5


def test_the_contrast_of_known_colours_is_right() -> None:
    assert contrast("ffffff", "000000") == pytest.approx(21)
    assert contrast("777777", "ffffff") == pytest.approx(4.48, abs=0.01)
