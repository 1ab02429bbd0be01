"""The Makefile, read with `make --dry-run`: what a target installs, and the commands that it runs."""

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def recipe(*arguments: str) -> str:
    """The commands that make would run."""
    make = ["make", "--dry-run", "--no-print-directory", *arguments]
    return subprocess.run(make, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_target_that_starts_the_local_server_installs_what_the_server_needs(tmp_path: Path) -> None:
    """Also where nothing is installed but a model is there, as after `make clean`."""
    for target in ("demo", "try", "serve"):
        commands = recipe(target, f"VENV={tmp_path / 'empty'}")
        assert " -m serving serve " in commands
        assert "--require-hashes -r requirements/train.txt" in commands, target
