"""The files that the Dockerfile copies into each image, without an engine."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.image.conftest import REPOSITORY

STAGES = dict(
    re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", (REPOSITORY / "Dockerfile").read_text(), re.M | re.S)
)
IGNORED = (REPOSITORY / ".dockerignore").read_text().splitlines()


def copied_to_app(stage: str) -> list[str]:
    """The files and folders that a stage copies from the repository to /app."""
    lines = re.findall(r"^COPY (.*) /app/\S*$", STAGES[stage], re.M)
    return [name for line in lines for name in line.split()]


@pytest.mark.parametrize(
    ("stage", "command"),
    [("client", "predict"), ("trainer", "train"), ("trainer", "predict"), ("trainer-gpu", "train")],
)
def test_an_images_own_files_run_digits_and_its_commands(stage: str, command: str, tmp_path: Path) -> None:
    """`docker run IMAGE digits predict ...` found no module digits."""
    for name in copied_to_app(stage):
        assert f"!{name}" in IGNORED, "the engine does not send this file to the build"
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-m", "digits", command, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: digits {command}" in done.stdout
