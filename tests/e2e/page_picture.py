"""Draw docs/web.png: the page in a real browser, with a drawn three and the prediction of a published version.

$ python -m tests.e2e.page_picture artifacts/models/digits docs/web.png
"""

import sys
from pathlib import Path

from serving.local_server.server import LocalServer
from tests.e2e.test_draw import DRAWN
from tests.serving.browser import start_browser
from tests.serving.page_server import start_web
from tests.waiting import wait_until

SIZE = (1000, 780)
"""Pixels; all of the page without its footer's margin."""


def main(models: Path, file: Path) -> None:
    """Serve the newest version in `models`, draw on the page, and write a picture of it to `file`."""
    with (
        LocalServer(models, start_timeout_seconds=120) as server,
        start_web(str(server.target)) as (_, port),
        start_browser() as browser,
    ):
        browser.open(f"http://127.0.0.1:{port}/", size=SIZE)
        browser.draw(DRAWN["3"])
        wait_until(lambda: browser.text("digit") == "3")
        browser.screenshot(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
