"""`predict --show`: one HTML page with each picture beside the network's input. It needs no other file and no network."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from percent import confidence_percent
from serving.commands.file_predictions import FilePrediction
from serving.commands.output import printable

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What the model saw</title>
<style>
  :root {{ color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; background: Canvas; color: CanvasText; }}
  body {{ margin: clamp(1rem, 4vw, 2rem); }}
  h1 {{ font-size: 1.5rem; margin: 0 0 .25rem; }}
  p {{ margin: 0 0 1.5rem; }}
  main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); gap: 1.5rem; }}
  figure {{ margin: 0; display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; }}
  img {{ width: 100%; aspect-ratio: 1; object-fit: contain; background: #8882; border-radius: .5rem; }}
  img.seen {{ image-rendering: pixelated; }}
  figcaption {{ grid-column: 1 / -1; overflow-wrap: anywhere; }}
</style>
<header>
<h1>What the model saw</h1>
<p>Left: the picture. Right: the 28 by 28 pixels that the model was given. Below: digit, confidence and file.</p>
</header>
<main>
{figures}
</main>
</html>
"""

_FIGURE = """<figure>
  {picture}
  <img class="seen" alt="what the model saw" src="data:image/png;base64,{seen}">
  <figcaption><strong>{digit}</strong> {confidence} &middot; {name}</figcaption>
</figure>"""


def write_contact_sheet(path: Path, predictions: Sequence[FilePrediction]) -> None:
    """Write the page.

    Raises:
        OSError: if the file cannot be written, or a picture cannot be read.
    """
    figures = [
        _FIGURE.format(
            picture=_picture_element(one.picture),
            seen=_base64(encode_png(one.network_input)),
            digit=html.escape(one.digit_text),
            confidence=html.escape(confidence_percent(one.prediction.confidence)),
            name=html.escape(printable(one.name)),
        )
        for one in predictions
    ]
    path.write_text(_PAGE.format(figures="\n".join(figures)), encoding="utf-8")


def _picture_element(picture: Path | bytes | None) -> str:
    if picture is None:
        return "<span></span>"
    content = picture.read_bytes() if isinstance(picture, Path) else picture
    # Browsers detect the format from the bytes, whatever type this names.
    return f'<img alt="the picture" src="data:image/png;base64,{_base64(content)}">'


def encode_png(image: np.ndarray) -> bytes:
    """Encode uint8 [H, W] as a grey PNG, so that the client needs no imaging library."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = image.shape
    rows = b"".join(b"\x00" + row.tobytes() for row in image)  # 0: the row is stored unfiltered
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, grey
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
