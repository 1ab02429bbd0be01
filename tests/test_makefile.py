"""The Makefile, read with `make --dry-run`: what a target installs, and the commands that it runs."""

import os
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


def test_a_failed_update_of_the_packages_is_an_error(tmp_path: Path) -> None:
    """It went unnoticed: the file that an earlier installation had left counted as the result of this one."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("""#!/bin/sh
case "$*" in *--require-hashes*) echo "pip's own words" >&2; exit 1 ;; esac
""")
    python.chmod(0o755)
    for name in ("created", "train.installed"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))  # older than requirements/train.txt, as after `git pull`
    make = ["make", "train", f"VENV={tmp_path}"]
    done = subprocess.run(make, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "pip's own words" in done.stdout
    assert "trainer train" not in done.stdout


def test_a_server_that_ends_at_once_is_not_waited_for(tmp_path: Path) -> None:
    """It was waited for during 60 s, and then the advice was to start a server."""
    (tmp_path / "models" / "digits" / "1").mkdir(parents=True)
    (tmp_path / "models" / "digits" / "1" / "saved_model.pb").touch()
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("""#!/bin/sh
case "$*" in
    *socket*) echo 1 ;;
    *"serving serve"*) echo "the server's own words" >&2; exit 2 ;;
    *"serving wait"*) sleep 1; exit 1 ;;
    *"serving web"*) echo "the page" ;;
esac
""")
    python.chmod(0o755)
    for name in ("created", "train.installed"):
        (tmp_path / name).touch()
    make = ["make", "try", f"VENV={tmp_path}", f"ARTIFACTS={tmp_path}"]
    done = subprocess.run(make, cwd=REPOSITORY, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "the server's own words" in done.stderr
    assert "the server did not start" in done.stdout
    assert "the page" not in done.stdout
