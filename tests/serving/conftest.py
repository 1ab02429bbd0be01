"""Servers for the tests: our own always; TensorFlow Serving's where there is one.

- A `tensorflow_model_server` on PATH (the binary, or a script that runs the container with `--network host` and the
  temporary directory mounted under its own name) is started wherever a test starts the local server.
- `TF_SERVING_TARGET=host:port` names one that is already up, and `TF_SERVING_REST_TARGET=host:port` its REST port. It gets
  the requests that need no start and no files of their own. It must serve all versions of the folder that
  `python -m tests.serving.saved_models FOLDER` writes, with the label `stable` on version 1.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from serving import contract
from serving.local_server.config import BatchingParameters
from serving.local_server.server import LocalServer
from serving.local_server.text_files import read_batching_parameters
from serving.local_server.versions.discovery import VersionPolicy
from tests.ports import free_port, port_is_open
from tests.serving.saved_models import write_two_versions
from tests.serving.stubs import Stubs
from tests.waiting import wait_until

MODEL_SERVER = shutil.which("tensorflow_model_server")
EXTERNAL_TARGET = os.environ.get("TF_SERVING_TARGET")
EXTERNAL_REST_TARGET = os.environ.get("TF_SERVING_REST_TARGET")
KINDS = ["local", *(["tensorflow_model_server"] if MODEL_SERVER else [])]
LATEST = VersionPolicy.latest()
NO_LABELS: Mapping[str, int] = MappingProxyType({})

Start = Callable[..., AbstractContextManager[Stubs]]


@pytest.fixture(scope="module", params=KINDS)
def start(request) -> Start:
    """A function `start(base_path, policy=..., labels=..., wait=True, **flags)` that runs a server during its block.

    The server polls as often as it can and never retries a failed load. With `wait=False` the block starts at once. The
    flags have TensorFlow Serving's names.
    """
    return _start_local if request.param == "local" else _start_model_server


@pytest.fixture(scope="module", params=KINDS + (["external"] if EXTERNAL_TARGET else []))
def two_versions(request, tmp_path_factory) -> Iterator[Stubs]:
    """A server of versions 1 and 2 (which adds one to every digit), the first labelled `stable`."""
    if request.param == "external":
        with Stubs(str(EXTERNAL_TARGET), EXTERNAL_REST_TARGET) as stubs:
            yield stubs
        return
    base_path = write_two_versions(tmp_path_factory.mktemp("two_versions") / contract.MODEL_NAME)
    start = _start_local if request.param == "local" else _start_model_server
    with start(base_path, policy=VersionPolicy.all(), labels={"stable": 1}) as stubs:
        # Both servers open their ports when one version is available.
        wait_until(lambda: stubs.state(1) == stubs.state(2) == "AVAILABLE")
        yield stubs


def model_entry(
    base_path: Path,
    *,
    name: str = contract.MODEL_NAME,
    policy: VersionPolicy = LATEST,
    labels: Mapping[str, int] = NO_LABELS,
) -> str:
    """Return a `config` entry of a `model_config_list` in text format."""
    inner = {
        "latest": f"num_versions: {policy.count}",
        "all": "",
        "specific": " ".join(f"versions: {version}" for version in sorted(policy.versions)),
    }[policy.kind]
    label_lines = "\n".join(f"version_labels {{ key: '{label}' value: {labels[label]} }}" for label in labels)
    return f"""config {{
        name: '{name}' base_path: '{base_path}' model_platform: 'tensorflow'
        model_version_policy {{ {policy.kind} {{ {inner} }} }}
        {label_lines}
    }}"""


@contextmanager
def _start_local(base_path: Path, *, wait: bool = True, **flags: Any) -> Iterator[Stubs]:
    port, rest_port = free_port(), free_port()
    config, flags = _write_model_config(base_path, flags)
    file = flags.pop("batching_parameters_file", None)
    if flags.pop("enable_batching", False):
        flags["batching"] = read_batching_parameters(file) if file else BatchingParameters()
    server = LocalServer(
        model_config_file=config, port=port, rest_port=rest_port, poll_wait_seconds=0.05, max_load_retries=0, **flags
    )
    server.start()
    try:
        if wait:
            assert server.wait_until_serving(60)
        with Stubs(f"127.0.0.1:{port}", f"127.0.0.1:{rest_port}") as stubs:
            yield stubs
    finally:
        server.stop()


@contextmanager
def _start_model_server(base_path: Path, *, wait: bool = True, **flags: Any) -> Iterator[Stubs]:
    port, rest_port = free_port(), free_port()
    config, flags = _write_model_config(base_path, flags)
    monitoring = config.with_suffix(".monitoring")
    monitoring.write_text("prometheus_config { enable: true path: '/monitoring/prometheus/metrics' }")
    flags |= {
        "port": port,
        "rest_api_port": rest_port,
        "model_config_file": config,
        "monitoring_config_file": monitoring,
        "file_system_poll_wait_seconds": 1,
        "max_num_load_retries": 0,
        "allow_version_labels_for_unavailable_models": "true",
    }
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in flags.items()}
    process = subprocess.Popen([str(MODEL_SERVER), *(f"--{name}={value}" for name, value in texts.items())])
    try:
        with Stubs(f"127.0.0.1:{port}", f"127.0.0.1:{rest_port}") as stubs:
            if wait:
                wait_until(lambda: port_is_open(port) or process.poll() is not None, timeout_seconds=60)
            yield stubs
    finally:
        process.terminate()  # not kill: it may be the client of a container, which would stay
        process.wait(30)


def _write_model_config(base_path: Path, flags: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    entries = flags.pop("entries", None) or model_entry(
        base_path, policy=flags.pop("policy", LATEST), labels=flags.pop("labels", NO_LABELS)
    )
    config = base_path.parent / f"{base_path.name}.config"
    config.write_text(f"model_config_list {{ {entries} }}")
    return config, flags


@contextmanager
def serve_in_a_process(base_path: Path, *flags: str) -> Iterator[tuple[subprocess.Popen, Stubs]]:
    """Run `python -m serving serve` with REST, as a user would, during the block."""
    command = [sys.executable, "-m", "serving", "serve", str(base_path), "--port", "0", "--rest-port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("serving "), line
            rest_line = process.stdout.readline()
            assert rest_line.startswith("REST on http://"), rest_line
            with Stubs(line.split()[-1], rest_line.split("/")[2]) as stubs:
                yield process, stubs
        finally:
            process.kill()
