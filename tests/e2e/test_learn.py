"""Draw, correct ten times, learn: the page answers with the new version."""

import subprocess
import sys
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains

from serving.local_server.server import LocalServer
from tests.serving.browser import needs_browser, start_browser
from tests.serving.page_server import start_web
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


def run_trainer(*arguments: object) -> None:
    command = [sys.executable, "-m", "trainer", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@needs_browser
def test_ten_corrections_on_the_page_teach_the_served_model_a_new_seven(tmp_path: Path) -> None:
    """The odd seven has a bar at its foot; the presets do not draw it."""
    artifacts, kept = tmp_path / "artifacts", tmp_path / "kept"
    run_trainer("train", "--preset", "quickstart", "--artifacts", artifacts)
    with (
        LocalServer(artifacts / "models" / "digits", start_timeout_seconds=120) as server,
        start_web(str(server.target), "--collect", str(kept)) as (_, port),
        start_browser() as page,
    ):
        page.open(f"http://127.0.0.1:{port}/")
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
        wait_until(lambda: page.text("newer") == newer, timeout_seconds=60)
        wait_until(lambda: page.text("digit").startswith("7"))
        assert not page.errors()
