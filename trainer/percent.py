"""The one style of percentages in everything that people read: terminal, figures, report, model card."""

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
