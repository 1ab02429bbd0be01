"""From training to the page: the demo's model is served, a real browser draws, and corrections teach it."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains

from serving.local_server.server import LocalServer
from tests.serving.browser import Browser, needs_browser, start_browser
from tests.serving.page_server import start_web
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, needs_browser]

ROOT = Path(__file__).parents[2]

DRAWN = {
    "1": [(0.42, 0.3), (0.55, 0.15), (0.55, 0.85)],
    "2": [(0.3, 0.32), (0.4, 0.18), (0.6, 0.18), (0.68, 0.34), (0.55, 0.55), (0.32, 0.82), (0.34, 0.83), (0.72, 0.82)],
    "3": [(0.3, 0.22), (0.5, 0.17), (0.66, 0.28), (0.6, 0.42), (0.45, 0.48), (0.66, 0.58), (0.64, 0.76), (0.3, 0.78)],
    "7": [(0.3, 0.25), (0.7, 0.25), (0.5, 0.5), (0.42, 0.8)],
}
"""The corners of strokes, relative to the canvas's side; the page rounds them."""


def run_trainer(*arguments: object) -> None:
    command = [sys.executable, "-m", "trainer", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def open_page(artifacts: Path, *flags: str) -> Iterator[Browser]:
    """Serve the models of `artifacts` and open the page in front of them."""
    with (
        LocalServer(artifacts / "models" / "digits", start_timeout_seconds=120) as server,
        start_web(str(server.target), *flags) as (_, port),
        start_browser() as page,
    ):
        page.open(f"http://127.0.0.1:{port}/")
        yield page


@pytest.fixture(scope="module")
def page(demo: Path) -> Iterator[Browser]:
    with open_page(demo / "artifacts") as page:
        yield page


@pytest.mark.parametrize(("digit", "corners"), DRAWN.items())
def test_a_drawn_digit_is_recognised(page: Browser, digit: str, corners: Sequence[tuple[float, float]]) -> None:
    page.draw(corners)
    wait_until(lambda: page.text("digit") == digit)
    page.find("clear").click()
    assert not page.errors()


def test_ten_corrections_on_the_page_teach_the_served_model_a_new_seven(demo: Path, tmp_path: Path) -> None:
    """The odd seven has a bar at its foot; the presets do not draw it."""
    artifacts, kept = Path(shutil.copytree(demo / "artifacts", tmp_path / "artifacts")), tmp_path / "kept"
    with open_page(artifacts, "--collect", str(kept)) as page:
        wait_until(page.find("correction").is_displayed)
        for number in range(10):
            lean = 0.02 * number
            page.draw([(0.3, 0.25 + lean / 4), (0.7, 0.25), (0.5 - lean, 0.8), (0.75, 0.8 - lean / 4)])
            wait_until(lambda: page.text("version").startswith("Model version "))
            ActionChains(page.driver).send_keys("7").perform()
            wait_until(lambda number=number: page.text("kept") == f"Kept as a 7. Pictures kept: {number + 1}")
            if number < 9:
                page.find("clear").click()
        assert len(list((kept / "7").glob("*.png"))) == 10
        run_trainer("learn", kept, "--artifacts", artifacts)
        newest = max(int(path.name) for path in (artifacts / "models" / "digits").glob("[0-9]*"))
        newer = f"A newer version of the model answers now: {newest}."
        wait_until(lambda: page.text("newer") == newer)
        wait_until(lambda: page.text("digit").startswith("7"))
        assert not page.errors()
