"""Suggested commands: what a user can type."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.command_line import command_line


@pytest.mark.parametrize(
    ("started", "expected"),
    [
        ("/venv/bin/digits", "/venv/bin/digits train --run 'a b'"),
        (".venv/bin/digits", ".venv/bin/digits train --run 'a b'"),
        ("{here}/.venv/bin/digits", ".venv/bin/digits train --run 'a b'"),
        ("{path}/digits", "digits train --run 'a b'"),
    ],
)
def test_the_console_script_is_suggested_as_it_was_started(
    started: str, expected: str, tmp_path: Path, monkeypatch
) -> None:
    path, here = tmp_path / "bin", tmp_path / "here"
    path.mkdir()
    here.mkdir()
    (path / "digits").touch(0o755)
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "argv", [started.format(here=here, path=path)])
    assert command_line("train", "--run", "a b") == expected


def test_a_module_is_suggested_with_the_python_that_runs_it() -> None:
    suggested = command_line("--help")
    assert suggested.endswith("-m trainer --help")
    done = subprocess.run(["bash", "-c", suggested], capture_output=True, text=True, check=False)
    assert "Train a digit recogniser" in done.stdout, done.stderr
    assert shutil.which(suggested.split()[0])
    assert command_line("web", package="serving") == suggested.replace("trainer --help", "serving web")
