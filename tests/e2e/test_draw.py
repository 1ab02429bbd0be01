"""From training to a drawn digit: a model is trained, published and served, and a real browser draws on the page."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from serving.local_server.server import LocalServer
from tests.serving.browser import Browser, needs_browser, start_browser
from tests.serving.page_server import start_web
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]

DRAWN = {
    "1": [(0.42, 0.3), (0.55, 0.15), (0.55, 0.85)],
    "2": [(0.3, 0.32), (0.4, 0.18), (0.6, 0.18), (0.68, 0.34), (0.55, 0.55), (0.32, 0.82), (0.34, 0.83), (0.72, 0.82)],
    "3": [(0.3, 0.22), (0.5, 0.17), (0.66, 0.28), (0.6, 0.42), (0.45, 0.48), (0.66, 0.58), (0.64, 0.76), (0.3, 0.78)],
    "7": [(0.3, 0.25), (0.7, 0.25), (0.5, 0.5), (0.42, 0.8)],
}
"""The corners of strokes, relative to the canvas's side; the page rounds them."""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Browser]:
    artifacts = tmp_path_factory.mktemp("artifacts")
    # As the presets for MNIST: drawn strokes are thinner.
    pens = ["--stroke-width-jitter-pixels", 0.8, "--stroke-gap-fraction", 0.1]
    train = [sys.executable, "-m", "trainer", "train", "--preset", "quickstart", "--artifacts", artifacts, *pens]
    subprocess.run([*map(str, train)], cwd=ROOT, check=True, capture_output=True, timeout=600)
    with (
        LocalServer(artifacts / "models" / "digits", start_timeout_seconds=120) as server,
        start_web(str(server.target)) as (_, port),
        start_browser() as browser,
    ):
        browser.open(f"http://127.0.0.1:{port}/")
        yield browser


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(("digit", "corners"), DRAWN.items())
def test_a_drawn_digit_is_recognised(page: Browser, digit: str, corners: Sequence[tuple[float, float]]):
    page.draw(corners)
    wait_until(lambda: page.text("digit") == digit)
    page.find("clear").click()
    assert not page.errors()
