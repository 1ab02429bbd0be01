"""The images, run as a cluster runs them. The tests take minutes and gigabytes. `make test-image` runs them and sets:

IMAGE_ENGINE   the command that runs containers: docker, or podman with its options
IMAGE_TAG      the tag of the images digits-trainer and digits-client (default: the project's version)
"""

import json
import os
import shlex
import subprocess
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
HARDENED = (
    "--user=10001:10001", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges",
)  # fmt: skip
"""The security settings of the manifests' pods, as Docker's options."""


class Engine:
    """docker or podman. Everything that it starts has one name prefix, and is removed at the end."""

    def __init__(self, command: str, tag: str):
        self.command, self.tag = shlex.split(command), tag
        self.prefix = f"digits-test-{uuid.uuid4().hex[:8]}"
        self._containers: list[str] = []
        self._volumes: list[str] = []
        self.network = f"{self.prefix}-network"
        self("network", "create", self.network)

    def __call__(self, *arguments: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{shlex.join(arguments)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done

    def image(self, name: str) -> str:
        return f"digits-{name}:{self.tag}"

    def new_volume(self) -> str:
        self._volumes.append(f"{self.prefix}-{len(self._volumes)}")
        self("volume", "create", self._volumes[-1])
        return self._volumes[-1]

    def run(self, image: str, *arguments: str, options: tuple[str, ...] = (), check: bool = True) -> str:
        """Run a container to its end with the pods' security settings; return its standard output."""
        line = ("run", "--rm", *HARDENED, f"--network={self.network}", *options, self.image(image), *arguments)
        return self(*line, check=check).stdout

    def start(self, image: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
        """Start a container in the background with the pods' security settings; return its name."""
        self._containers.append(f"{self.prefix}-{len(self._containers)}")
        name = self._containers[-1]
        line = ("run", "--detach", f"--name={name}", *HARDENED, f"--network={self.network}", *options)
        self(*line, self.image(image), *arguments)
        return name

    def wait(self, container: str) -> int:
        """Wait until a container ends; return its exit status."""
        return int(self("wait", container).stdout)

    def read(self, volume: str, path: str) -> str:
        """The text of a file on a volume."""
        code = f"print(open({path!r}).read())"
        return self.run("trainer", "-c", code, options=("--entrypoint=python", f"--volume={volume}:/artifacts:ro"))

    def close(self) -> None:
        self("rm", "--force", *self._containers, check=False) if self._containers else None
        self("volume", "rm", "--force", *self._volumes, check=False) if self._volumes else None
        self("network", "rm", self.network, check=False)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    command = os.environ.get("IMAGE_ENGINE")
    if not command:
        pytest.skip("IMAGE_ENGINE is not set; `make test-image` sets it")
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    engine = Engine(command, os.environ.get("IMAGE_TAG", version))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def trained(engine: Engine) -> str:
    """A volume with the finished run `first` of the quickstart preset, which has published a version."""
    volume = engine.new_volume()
    engine.run(
        "trainer", "trainer", "train", "--preset=quickstart", "--artifacts=/artifacts", "--run=first",
        options=(f"--volume={volume}:/artifacts",),
    )  # fmt: skip
    assert json.loads(engine.read(volume, "/artifacts/runs/first/result.json"))["exit_code"] == 0
    return volume
