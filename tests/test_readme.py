"""The README's first commands, as a new user types them, print what the README shows."""

import os
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.make import make
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()


def normalized(line: str) -> str:
    """A line without what differs from run to run: numbers, the spaces before them, and the end of a cut line."""
    return re.sub(r"\s*>?\d[\d.,:-]*", "#", line).removesuffix(" ...").rstrip()


@pytest.mark.slow
def test_make_demo_prints_what_the_readme_shows(demo: Path) -> None:
    shown = README.split("`make demo` prints")[1].split("```")[1].strip().splitlines()
    printed = [normalized(line) for line in (demo / "said").read_text().splitlines()]
    for line in shown:
        if line != "...":
            assert any(text.startswith(normalized(line)) for text in printed), line


@pytest.mark.slow
def test_make_try_prints_the_page_as_the_readme_shows_and_ctrl_c_ends_both(demo: Path) -> None:
    process = subprocess.Popen(
        make("try"), cwd=demo, stdout=subprocess.PIPE, text=True, start_new_session=True, bufsize=1
    )
    try:
        assert process.stdout
        shown = README.split("`make try` prints `")[1].split("`")[0]
        line = next(line for line in process.stdout if normalized(line) == normalized(shown))
        url = line.split()[-1]
        assert urllib.request.urlopen(f"{url}/readyz", timeout=60).status == 200
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=60)
        wait_until(lambda: not _is_running(process.pid))
    finally:
        if _is_running(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def _is_running(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
