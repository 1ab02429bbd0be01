"""The small install: the client's hashed requirements alone, in a clean virtual environment, without TensorFlow."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tests.serving.scripted_server import scripted_server

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements" / "client.txt"

IMPORTED = """
import sys, serving.client, serving.commands, serving.bench, serving.answers, serving.sheet
print(serving.client.__file__)
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"tensorflow", "keras", "tensorflow_serving"}))
"""


def _direct_requirements() -> set[str]:
    lines = (ROOT / "requirements" / "client.in").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def test_the_clients_requirements_are_those_of_the_whole_project():
    dependencies = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    assert _direct_requirements() <= dependencies


def test_the_lock_pins_and_hashes_every_requirement_and_names_no_place():
    lock = REQUIREMENTS.read_text()
    packages = re.findall(r"^([a-z][a-z0-9-]*)==\S+(?: ; [^\\]+)? \\\n    --hash=sha256:", lock, re.MULTILINE)
    starts = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(packages) == len(starts)
    assert {re.match(r"[a-z]+", line).group() for line in _direct_requirements()} <= set(packages)
    assert not re.search(r"https?:|index|file:|\s/", lock)


@pytest.mark.slow
def test_the_client_works_in_a_clean_environment_without_tensorflow(tmp_path):
    environment, python = tmp_path / "venv", tmp_path / "venv" / "bin" / "python"
    source, outside = tmp_path / "source", tmp_path / "outside"
    outside.mkdir()

    def run(*command, cwd=outside):
        return subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=True, timeout=600)

    # A copy, as building leaves its traces beside the sources.
    source.mkdir()
    run("cp", "-r", ROOT / "serving", ROOT / "trainer", ROOT / "pyproject.toml", source)
    for name in ("README.md", "LICENSE"):
        (source / name).write_text((ROOT / name).read_text() if (ROOT / name).exists() else "")
    run(sys.executable, "-m", "venv", environment)
    run(python, "-m", "pip", "install", "-q", "--require-hashes", "-r", REQUIREMENTS)
    run(python, "-m", "pip", "install", "-q", "--no-deps", source)

    file, tensorflow = run(python, "-c", IMPORTED).stdout.splitlines()
    assert Path(file).is_relative_to(environment)
    assert tensorflow == ""
    np.save(outside / "image.npy", np.full((28, 28), 7, np.uint8))
    with scripted_server() as target:
        done = run(python, "-m", "serving", "predict", "image.npy", "--target", target)
        assert run(python, "-m", "serving", "wait", "--target", target).stdout == "1\n"
    assert done.stdout.splitlines()[1].split()[:2] == ["image.npy", "7"]
    installed = run(python, "-m", "pip", "list", "--format=freeze").stdout
    assert "tensorflow" not in installed
