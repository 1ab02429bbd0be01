"""Servers for the tests: our own always; TensorFlow Serving's where there is one.

- A `tensorflow_model_server` on PATH (the binary, or a script that runs the container with `--network host` and the
  temporary directory mounted under its own name) is started afresh wherever a test starts the local server.
- `TF_SERVING_TARGET=host:port` names one that is already up; it is asked what needs no start and no files of its own.
  It must serve all versions of the folder that `python -m tests.serving.saved_models FOLDER` writes, with the label
  `stable` on version 1.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest

from serving import contract
from serving.local_server.server import LocalServer
from serving.local_server.versions.discovery import VersionPolicy
from tests.ports import free_port, port_is_open
from tests.serving.saved_models import write_two_versions
from tests.serving.stubs import Stubs
from tests.waiting import wait_until

MODEL_SERVER = shutil.which("tensorflow_model_server")
EXTERNAL_TARGET = os.environ.get("TF_SERVING_TARGET")
KINDS = ["local", *(["tensorflow_model_server"] if MODEL_SERVER else [])]
LATEST = VersionPolicy.latest()
NO_LABELS: Mapping[str, int] = MappingProxyType({})

Start = Callable[..., AbstractContextManager[Stubs]]


@pytest.fixture(scope="module", params=KINDS)
def start(request) -> Start:
    """A function `start(base_path, policy=..., labels=..., wait=True)` that runs a server while its block lasts.

    The server looks for versions as often as it can and never tries a failed load again. With `wait=False` the block is
    entered at once.
    """
    return _start_local if request.param == "local" else _start_model_server


@pytest.fixture(scope="module", params=KINDS + (["external"] if EXTERNAL_TARGET else []))
def two_versions(request, tmp_path_factory) -> Iterator[Stubs]:
    """A server of versions 1 and 2 (which adds one to every digit), the first labelled `stable`."""
    if request.param == "external":
        with Stubs(str(EXTERNAL_TARGET)) as stubs:
            yield stubs
        return
    base_path = write_two_versions(tmp_path_factory.mktemp("two_versions") / contract.MODEL_NAME)
    start = _start_local if request.param == "local" else _start_model_server
    with start(base_path, policy=VersionPolicy.all(), labels={"stable": 1}) as stubs:
        # Both servers answer as soon as one version is there.
        wait_until(lambda: stubs.state(1) == stubs.state(2) == "AVAILABLE")
        yield stubs


@contextmanager
def _start_local(
    base_path: Path,
    *,
    policy: VersionPolicy = LATEST,
    labels: Mapping[str, int] = NO_LABELS,
    wait: bool = True,
) -> Iterator[Stubs]:
    port = free_port()
    server = LocalServer(
        base_path, port=port, poll_wait_seconds=0.05, version_policy=policy, version_labels=labels, max_load_retries=0
    )
    server.start()
    try:
        if wait:
            assert server.wait_until_serving(60)
        with Stubs(f"127.0.0.1:{port}") as stubs:
            yield stubs
    finally:
        server.stop()


@contextmanager
def _start_model_server(
    base_path: Path,
    *,
    policy: VersionPolicy = LATEST,
    labels: Mapping[str, int] = NO_LABELS,
    wait: bool = True,
) -> Iterator[Stubs]:
    port = free_port()
    config = base_path.parent / f"{base_path.name}.config"
    config.write_text(_model_config(base_path, policy, labels))
    flags = {
        "port": port,
        "model_config_file": config,
        "file_system_poll_wait_seconds": 1,
        "max_num_load_retries": 0,
        "allow_version_labels_for_unavailable_models": "true",
    }
    process = subprocess.Popen([str(MODEL_SERVER), *(f"--{name}={value}" for name, value in flags.items())])
    try:
        with Stubs(f"127.0.0.1:{port}") as stubs:
            if wait:
                wait_until(lambda: port_is_open(port) or process.poll() is not None, timeout_seconds=60)
            yield stubs
    finally:
        process.kill()
        process.wait()


def _model_config(base_path: Path, policy: VersionPolicy, labels: Mapping[str, int]) -> str:
    inner = {
        "latest": f"num_versions: {policy.count}",
        "all": "",
        "specific": " ".join(f"versions: {version}" for version in sorted(policy.versions)),
    }[policy.kind]
    label_lines = "\n".join(f"version_labels {{ key: '{label}' value: {labels[label]} }}" for label in labels)
    return f"""model_config_list {{ config {{
        name: '{contract.MODEL_NAME}' base_path: '{base_path}' model_platform: 'tensorflow'
        model_version_policy {{ {policy.kind} {{ {inner} }} }}
        {label_lines}
    }} }}"""


@contextmanager
def serve_in_a_process(base_path: Path, *flags: str) -> Iterator[tuple[subprocess.Popen, Stubs]]:
    """Runs `python -m serving serve`, as a user would, while the block lasts."""
    command = [sys.executable, "-m", "serving", "serve", str(base_path), "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("serving "), line
            with Stubs(line.split()[-1]) as stubs:
                yield process, stubs
        finally:
            process.kill()
