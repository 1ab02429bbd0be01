"""Damaged and hostile picture files get a prediction or a problem, and the server keeps running."""

import collections
import itertools
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.hostile_pictures import hostile_files

HOSTILE_PICTURES = int(os.environ.get("HOSTILE_PICTURES", 1500))
"""5,000 in `make soak`."""

MAX_GROWTH_KIB = 2**18
"""A quarter of a GiB: 0.2 MiB for each picture sent after the first quarter of 1,500."""


def resident_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def send_hostile_files(tmp_path: Path, trained, count: int) -> collections.Counter:
    from serving.client import ClientConfig, DigitClient
    from serving.local_server.server import LocalServer
    from trainer.publishing.gate import Gate
    from trainer.publishing.publish import publish

    publish(
        trained.model, trained.evaluation, trained.test, model_dir=tmp_path / "digits",
        gate=Gate(min_accuracy=0.0, tolerance=1.0), now=datetime(2026, 1, 2, tzinfo=UTC), metadata={},
        verify=lambda *_: {},
    )  # fmt: skip
    outcomes: collections.Counter = collections.Counter()
    files = list(itertools.islice(hostile_files(7), count))
    with LocalServer(tmp_path / "digits", port=0) as server, DigitClient(server.target, ClientConfig()) as client:
        before = 0
        for number, content in enumerate(files):
            (prediction,) = client.predict_pictures([content])
            assert np.isfinite(prediction.probabilities).all()
            outcomes["rejected" if prediction.problem else "answered"] += 1
            if number == count // 4:
                before = resident_kib()
        assert resident_kib() < before + MAX_GROWTH_KIB
    assert outcomes["answered"] + outcomes["rejected"] == count, outcomes
    return outcomes


def test_hostile_pictures_are_answered_or_rejected_and_the_server_keeps_running(tmp_path: Path, trained) -> None:
    outcomes = send_hostile_files(tmp_path, trained, 100)
    assert min(outcomes["answered"], outcomes["rejected"]) > 20


@pytest.mark.slow
def test_many_hostile_pictures_leave_the_server_and_its_memory_intact(tmp_path: Path, trained) -> None:
    outcomes = send_hostile_files(tmp_path, trained, HOSTILE_PICTURES)
    assert min(outcomes["answered"], outcomes["rejected"]) > HOSTILE_PICTURES / 5
