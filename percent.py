"""The one style of percentages that people read, in the terminal, reports and pages; `trainer` and `serving` both use it.

The drawing page has the same rules in JavaScript: serving/web/page/page.js.
"""

import math


def percent(share: float, digits: int = 2) -> str:
    """Write a share as text: 0.98765 -> "98.77 %". NaN becomes "-".

    A share below 1 is never rounded up to 100 %: 0.99999 -> ">99.99 %".
    """
    if math.isnan(share):
        return "-"
    text = f"{share:.{digits}%}"
    if share < 1 and text.startswith("100"):
        text = f">{1 - 10.0 ** -(digits + 2):.{digits}%}"
    return text.replace("%", " %")


def confidence_percent(confidence: float, digits: int = 1) -> str:
    """Write a model's confidence, which is never 100 %: float32 rounds 0.99999999 to 1. So 1.0 -> ">99.9 %"."""
    return percent(min(float(confidence), 1 - 1e-9), digits)
