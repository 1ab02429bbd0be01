"""The doctor's findings and their order."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.conftest import run_trainer
from trainer.errors import ExitCode
from trainer.runs.checkpoint import Checkpoint, write_checkpoint
from trainer.runs.result import RunResult


@pytest.fixture
def examine(tmp_path: Path):
    from trainer.doctor import examine

    def lines(**environment: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for finding in examine(tmp_path, tmp_path / "data", tmp_path / "models" / "digits", environment):
            found.setdefault(finding.topic, []).append(f"{finding.level}: {finding.text}")
        return found

    return lines


def test_one_screen_problems_first(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file in the way")
    done = run_trainer("doctor", "--artifacts", tmp_path / "artifacts")
    assert done.returncode == ExitCode.USAGE
    lines = done.stdout.splitlines()
    assert len(lines) < 24
    assert lines[0] == f"PROBLEM  disk     {tmp_path / 'artifacts'} cannot be written to; choose another --artifacts"
    levels = [line.split()[0] for line in lines]
    assert levels == sorted(levels, key=["PROBLEM", "warning", "ok"].index)
    assert {line.split()[1] for line in lines} == {"python", "devices", "threads", "disk", "data", "models", "peers"}
    assert "error: 1 problem(s), above" in done.stderr


def test_a_healthy_machine_has_no_problem(examine) -> None:
    found = examine()
    assert not [text for texts in found.values() for text in texts if text.startswith("PROBLEM")]
    assert "a run of one worker trains on" in found["devices"][-1]
    assert f"{len(os.sched_getaffinity(0))} CPU cores" in found["threads"][0]


def test_an_unfinished_run_is_named_with_the_command_that_resumes_it(examine, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine" / "checkpoints"
    write_checkpoint(folder, Checkpoint(42, {"losses": np.zeros(42)}, {"is_trained": False}))
    assert "has checkpoints up to step 42" in examine()["runs"][0]
    assert f"--config {tmp_path}/runs/mine/config.json --run mine" in examine()["runs"][0]
    (folder.parent / "trial.json").write_text(RunResult(exit_code=ExitCode.STOPPED).to_json())
    assert "has checkpoints up to step 42" in examine()["runs"][0]
    (folder.parent / "trial.json").write_text(RunResult().to_json())
    assert "runs" not in examine(), "a search stopped this trial early"
    (folder.parent / "trial.json").unlink()
    write_checkpoint(folder, Checkpoint(43, {"losses": np.zeros(43)}, {"is_trained": True}))
    assert "runs" not in examine()


def test_unreachable_peers_are_named_with_the_reason(examine) -> None:
    task = {"cluster": {"worker": ["127.0.0.1:9", "nobody.invalid:9"]}, "task": {"type": "worker", "index": 0}}
    assert examine(TF_CONFIG=json.dumps(task))["peers"] == [
        "warning: nobody.invalid:9: its name does not resolve",
        "ok: this is the chief of 2, 127.0.0.1:9: MultiWorkerMirroredStrategy",
    ]
    assert examine(TF_CONFIG="{")["peers"][0].startswith("PROBLEM: TF_CONFIG is '{'")


@pytest.mark.parametrize("threads", ["", "many"])
def test_a_number_of_threads_that_tensorflow_ignores_is_ignored(examine, monkeypatch, threads: str) -> None:
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", threads)
    cores = len(os.sched_getaffinity(0))
    assert f"{cores} CPU cores, {cores} thread(s)" in examine()["threads"][0]


def test_a_gpu_that_tensorflow_does_not_see_is_a_problem(examine, tmp_path: Path, monkeypatch) -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow sees a GPU here")
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 580.1'\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "1 x NVIDIA H200, 143771 MiB, 580.1, but TensorFlow sees no GPU" in examine()["devices"][0]
    assert "pip install .[gpu]" in examine()["devices"][0]


def test_mnist_is_looked_for_where_tensorflow_datasets_puts_it(examine, tmp_path: Path) -> None:
    assert "which downloads it (0 of 4 files" in examine()["data"][0]
    manual = tmp_path / "data" / "downloads" / "manual"
    manual.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (manual / f"{name}-ubyte.gz").write_text("")
    assert "from the four files there" in examine()["data"][0]
    (tmp_path / "data" / "mnist" / "3.0.1").mkdir(parents=True)
    assert any("MNIST is prepared in" in text for text in examine()["data"])
