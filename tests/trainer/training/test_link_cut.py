"""Workers on separate hosts (network namespaces) whose link is cut during a run: they live but cannot communicate.

Needs root and iproute2, and changes no other network: opt in with LINK_CUT=1.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.conftest import REPOSITORY
from tests.trainer.runner import wait_for_step
from tests.trainer.training.test_workers import FLAGS, losses, one_worker
from trainer.errors import ExitCode

__all__ = ["one_worker"]

ADDRESSES = ("10.213.0.1", "10.213.0.2")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("LINK_CUT") != "1", reason="opt in with LINK_CUT=1: needs root and iproute2"),
]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a link between them."""
    names = (f"digits{os.getpid()}a", f"digits{os.getpid()}b")
    for name in names:
        ip("netns", "add", name)
    ip("link", "add", "left", "netns", names[0], "type", "veth", "peer", "name", "right", "netns", names[1])
    for name, device, address in zip(names, ("left", "right"), ADDRESSES, strict=True):
        ip("-n", name, "address", "add", f"{address}/24", "dev", device)
        ip("-n", name, "link", "set", device, "up")
        ip("-n", name, "link", "set", "lo", "up")
    yield names
    for name in names:
        ip("netns", "delete", name)


def start(hosts: tuple[str, str], artifacts: Path) -> list[subprocess.Popen]:
    processes = []
    for index, host in enumerate(hosts):
        workers = [f"{address}:2222" for address in ADDRESSES]
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        command = [sys.executable, "-m", "trainer", "train", "--artifacts", artifacts, "--run", "r", *FLAGS]
        processes.append(
            subprocess.Popen(
                ["ip", "netns", "exec", host, *map(str, command)],
                cwd=REPOSITORY,
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stderr=(artifacts / f"said-{index}").open("a"),
                stdout=subprocess.DEVNULL,
            )
        )
    return processes


def test_if_the_link_is_cut_all_workers_exit_within_30_seconds_and_resume_once_it_is_restored(
    hosts: tuple[str, str],
    one_worker: Path,
    tmp_path: Path,
) -> None:
    processes = start(hosts, tmp_path)
    wait_for_step(tmp_path, 30)
    ip("-n", hosts[1], "link", "set", "right", "down")
    cut = time.monotonic()
    codes = [process.wait(timeout=60) for process in processes]
    assert codes == [ExitCode.PEERS] * 2, (tmp_path / "said-0").read_text()[-2000:]
    assert time.monotonic() - cut < 30
    ip("-n", hosts[1], "link", "set", "right", "up")
    assert [process.wait(timeout=300) for process in start(hosts, tmp_path)] == [ExitCode.OK] * 2

    np.testing.assert_allclose(losses(one_worker)[:100], losses(tmp_path)[:100], rtol=1e-4)
