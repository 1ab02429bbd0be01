"""The README's first commands, as a new user types them, print what the README shows."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()


def make(target: str) -> list[str]:
    """`make TARGET` with the packages of the running interpreter, without installing any."""
    venv = Path(sys.prefix)
    installed = [f"--old-file={venv / f'{name}.installed'}" for name in ("train", "web", "dev")]
    return ["make", *installed, target, f"VENV={venv}"]


def normalized(line: str) -> str:
    """A line without what differs from run to run: numbers, the spaces before them, and the end of a cut line."""
    return re.sub(r"\s*>?\d[\d.,:-]*", "#", line).removesuffix(" ...").rstrip()


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, str]:
    """A copy of the repository in which `make demo` has run, and what it printed."""
    clone = tmp_path_factory.mktemp("clone") / "digits"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", REPOSITORY, clone], check=True, timeout=60)
    done = subprocess.run(make("demo"), cwd=clone, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return clone, done.stdout + done.stderr


@pytest.mark.slow
def test_make_demo_prints_what_the_readme_shows(demo: tuple[Path, str]) -> None:
    shown = README.split("`make demo` prints")[1].split("```")[1].strip().splitlines()
    printed = [normalized(line) for line in demo[1].splitlines()]
    for line in shown:
        if line != "...":
            assert any(text.startswith(normalized(line)) for text in printed), line


@pytest.mark.slow
def test_make_try_prints_the_page_as_the_readme_shows_and_ctrl_c_ends_both(demo: tuple[Path, str]) -> None:
    process = subprocess.Popen(
        make("try"), cwd=demo[0], stdout=subprocess.PIPE, text=True, start_new_session=True, bufsize=1
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
