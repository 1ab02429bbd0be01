"""The parts of the report and of the comparison: each is one HTML file, readable on a phone, in the dark and on paper.

A page loads nothing from elsewhere. Charts are inline SVG whose colours are CSS variables, so they follow the dark mode.
"""

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from trainer.evaluation.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED

STYLE = Path(__file__).with_name("page.css")

COLORS = {BLUE: "--blue", ORANGE: "--orange", RED: "--red", GREEN: "--green", PURPLE: "--purple", GREY: "--muted"}
"""Colour of a figure -> the CSS variable that takes its place in a page."""


def page(title: str, body: str) -> str:
    """Return a complete HTML page; `title` is text, `body` is HTML."""
    body = body.replace(" %", "&nbsp;%")  # A number and its sign stay on one line.
    body = re.sub(r"(?<=\s)--[a-z][\w-]*", r'<span class="flag">\g<0></span>', body)  # And so does a flag.
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{STYLE.read_text()}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def facts(rows: Mapping[str, Any]) -> str:
    """Return a table of names and values."""
    cells = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(str(v))}</td></tr>' for k, v in rows.items())
    return f'<table class="facts">{cells}</table>'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], label: str) -> str:
    """Return a table of numbers that scrolls sideways where it is too wide; the first column names the row."""
    columns = "".join(f'<th scope="col"{_number(i)}>{escape(name)}</th>' for i, name in enumerate(head))
    lines = []
    for first, *others in rows:
        cells = "".join(f'<td class="number">{escape(str(value))}</td>' for value in others)
        lines.append(f'<tr><th scope="row">{escape(str(first))}</th>{cells}</tr>')
    return scroll(f"<table><thead><tr>{columns}</tr></thead><tbody>{''.join(lines)}</tbody></table>", label)


def scroll(content: str, label: str) -> str:
    """Return a region that scrolls sideways, by keyboard too."""
    return f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">{content}</div>'


def commands(*lines: str) -> str:
    """Return commands to copy."""
    return f"<pre><code>{escape(chr(10).join(lines))}</code></pre>"


def chart(figure: Figure, caption: str, description: str) -> str:
    """Return a figure as inline SVG with a caption; `description` is what a screen reader says.

    Text stays text, in the page's font, and colours become CSS variables.
    """
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": caption, "svg.id": None}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    prefix = re.sub(r"\W+", "-", caption)
    svg = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    for color, variable in COLORS.items():
        svg = svg.replace(color, f"var({variable})")
    svg = re.sub(r"#000000|#b0b0b0", "currentColor", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def charts(*items: str) -> str:
    """Return charts side by side, or below each other where there is no room."""
    return f'<div class="charts">{"".join(items)}</div>'


def digits(images: Iterable[np.ndarray], labels: Iterable[int], captions: Iterable[str]) -> str:
    """Return pictures of digits, each with a caption (HTML); images uint8 [28, 28], 0 = paper, 255 = ink."""
    items = (
        f'<li><img src="{_png(image)}" alt="handwritten {label}" width="84" height="84">{caption}</li>'
        for image, label, caption in zip(images, labels, captions, strict=False)
    )
    return f'<ul class="digits">{"".join(items)}</ul>'


def _png(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(255 - image).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _number(column: int) -> str:
    return ' class="number"' if column else ""
