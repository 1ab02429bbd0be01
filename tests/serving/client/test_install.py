"""The small install: the client's hashed requirements alone, in a clean virtual environment, without TensorFlow."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tests.serving.page_server import request, start_web
from tests.serving.scripted_server import scripted_server

ROOT = Path(__file__).parents[3]
REQUIREMENTS = ROOT / "requirements" / "client.txt"

IMPORTED = """
import sys, serving.client.client
import serving.commands.bench, serving.commands.predict, serving.commands.contact_sheet
print(serving.client.client.__file__)
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"tensorflow", "keras", "tensorflow_serving"}))
"""


def _direct_requirements() -> set[str]:
    lines = (ROOT / "requirements" / "client.in").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def test_the_clients_requirements_have_the_ranges_of_the_whole_project():
    dependencies = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    assert _direct_requirements() <= dependencies


@pytest.mark.parametrize("name", ["client", "web"])
def test_the_lock_pins_and_hashes_every_requirement_and_names_no_index_or_path(name):
    lock = (ROOT / "requirements" / f"{name}.txt").read_text()
    packages = re.findall(r"^([a-z][a-z0-9-]*)==\S+(?: ; [^\\]+)? \\\n    --hash=sha256:", lock, re.MULTILINE)
    starts = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(packages) == len(starts)
    assert {re.match(r"[a-z]+", line).group() for line in _direct_requirements()} <= set(packages)
    assert not re.search(r"https?:|index|file:|\s/", lock)


@pytest.fixture
def install(tmp_path):
    """A function that installs a requirements file and this project into a clean environment and returns its Python."""

    def install(requirements: Path) -> Path:
        python, source = tmp_path / "venv" / "bin" / "python", tmp_path / "source"
        source.mkdir()  # a copy, because a build writes beside the sources
        modules = ("digits.py", "percent.py", "quiet_tensorflow.py")
        names = (*modules, "serving", "trainer", "pyproject.toml", "README.md", "LICENSE")
        run("cp", "-r", *(ROOT / name for name in names), source)
        run(sys.executable, "-m", "venv", tmp_path / "venv")
        run(python, "-m", "pip", "install", "-q", "--require-hashes", "-r", requirements)
        run(python, "-m", "pip", "install", "-q", "--no-deps", source)
        return python

    return install


def run(*command, cwd=None):
    return subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=True, timeout=600)


@pytest.mark.slow
def test_the_client_works_in_a_clean_environment_without_tensorflow(install, tmp_path):
    python, outside = install(REQUIREMENTS), tmp_path / "outside"
    outside.mkdir()
    file, tensorflow = run(python, "-c", IMPORTED, cwd=outside).stdout.splitlines()
    assert Path(file).is_relative_to(tmp_path / "venv")
    assert tensorflow == ""
    np.save(outside / "image.npy", np.full((28, 28), 7, np.uint8))
    (outside / "photo.jpg").write_bytes(b"\x03 as it is")
    with scripted_server() as target:
        done = run(python, "-m", "serving", "predict", "image.npy", "photo.jpg", "--target", target, cwd=outside)
        assert run(python, "-m", "serving", "wait", "--target", target, cwd=outside).stdout == "1\n"
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [["image.npy", "7"], ["photo.jpg", "3"]]
    installed = run(python, "-m", "pip", "list", "--format=freeze").stdout
    assert "tensorflow" not in installed
    assert "pillow" not in installed
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run(python, "-m", "serving", "web", cwd=outside)
    assert failed.value.stderr == (
        "error: web needs the package starlette, which is not installed: "
        "python -m pip install --require-hashes -r requirements/web.txt\n"
    )
    assert run(tmp_path / "venv" / "bin" / "digits", "wait", "--help", cwd=outside).stdout.startswith(
        "usage: digits wait"
    )


@pytest.mark.slow
def test_the_installed_page_has_all_its_files(install, tmp_path):
    python = install(ROOT / "requirements" / "web.txt")
    with scripted_server() as target, start_web(target, python=python, cwd=tmp_path) as (_, port):
        for path in sorted((ROOT / "serving" / "web" / "page").iterdir()):
            status, _, body = request(port, "GET", f"/{path.name}")
            assert (status, body) == (200, path.read_bytes())
        assert request(port, "GET", "/readyz")[0] == 200
