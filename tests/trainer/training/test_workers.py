"""Several workers on loopback: the training is the same at any number of workers."""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from tests.ports import free_port
from tests.trainer.conftest import read_result
from tests.trainer.runner import UNREPORTED, start_run, wait_for_step
from trainer.cli import main
from trainer.errors import ExitCode
from trainer.runs.checkpoint import checkpoint_files
from trainer.runs.tracking import read_rows

FLAGS = (
    "--no-publish", "--model", "lenet", "--precision", "float32", "--learning-rate", 2e-4, "--epochs", 4, "--width", 0.5,
    "--dropout", 0.3, "--global-batch-size", 48, "--steps-per-call", 1, "--checkpoint-steps", 10,
    "--peer-timeout-seconds", 60, "--pen-weight", 0,
)  # fmt: skip

WITH_BATCH_NORM = ("--model", "cnn", "--precision", "float64")
"""In float32, rounding errors of batch norm over all workers grow into differences (see test_loop.py)."""


@contextmanager
def workers(
    artifacts: Path, count: int, *flags: object, patches: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[list[ForkServerProcess]]:
    """The processes of a run with `count` workers; any that still run at the end are killed."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(count)]
    processes = []
    for index in range(count):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {"TF_CONFIG": json.dumps(task)} if count > 1 else {}
        said = f"said-{index}"
        all_patches = {**UNREPORTED, **patches}
        processes.append(start_run(artifacts, *FLAGS, *flags, environment=environment, said=said, patches=all_patches))
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def run_to_the_end(
    artifacts: Path, count: int, *flags: object, patches: Mapping[str, Any] = MappingProxyType({})
) -> None:
    with workers(artifacts, count, *flags, patches=patches) as processes:
        wait_until_the_end(processes, artifacts)


def wait_until_the_end(processes: list[ForkServerProcess], artifacts: Path) -> None:
    for index, process in enumerate(processes):
        process.join(300)
        assert process.exitcode == ExitCode.OK, (artifacts / f"said-{index}").read_text()


def losses(artifacts: Path) -> np.ndarray:
    return np.array([row["loss"] for row in read_rows(artifacts / "runs" / "r") if row["kind"] == "train"])


def exit_codes(processes: list[ForkServerProcess], within_seconds: float) -> list[int | None]:
    deadline = time.monotonic() + within_seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory) -> Path:
    """The artefacts of a run by one worker."""
    artifacts = tmp_path_factory.mktemp("one")
    run_to_the_end(artifacts, 1)
    return artifacts


@pytest.mark.slow
def test_three_workers_have_the_losses_of_one_and_their_threads_do_not_grow_with_the_steps(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    run_to_the_end(alone, 1, *WITH_BATCH_NORM)
    # A time-out of TensorFlow's own collectives keeps one sleeping thread for each of them, forty in every step: runs of
    # a hundred steps ended at the limit of a container.
    with workers(together, 3, *WITH_BATCH_NORM) as processes:
        wait_for_step(together, 60)
        threads = [len(list(Path(f"/proc/{process.pid}/task").iterdir())) for process in processes]
        wait_until_the_end(processes, together)
    assert max(threads) < 500
    assert len(losses(together)) > 100
    np.testing.assert_allclose(losses(alone)[:100], losses(together)[:100], rtol=1e-4)
    one, several = (read_result(artifacts / "runs" / "r") for artifacts in (alone, together))
    assert one["evaluation"]["accuracy"] == several["evaluation"]["accuracy"]
    assert "and those of 2 other worker(s)" in several["facts"]["devices"]


@pytest.mark.slow
def test_two_workers_in_float16_skip_overflowing_steps_together(tmp_path: Path) -> None:
    # The scale of the loss is doubled every 3 steps, so that every few steps some worker's gradients overflow. One skipped
    # a collective then, and the other waited for ever.
    patches = {"trainer.training.optimizer.LOSS_SCALE_GROWTH_STEPS": 3}
    flags = ("--precision", "mixed_float16", "--learning-rate", 2e-3)
    run_to_the_end(tmp_path, 2, *flags, patches=patches)
    assert losses(tmp_path)[-10:].mean() < 0.5 * losses(tmp_path)[:10].mean()
    rows = read_rows(tmp_path / "runs" / "r")
    last = [row for row in rows if row["kind"] == "train"][-1]
    assert last["learning_rate"] > 0, "the schedule lags behind the steps: some were skipped"


def never_return(*_: object) -> float:
    time.sleep(600)
    raise AssertionError("the test has ended")


@pytest.mark.slow
def test_if_a_worker_hangs_the_others_exit_in_bounded_time(tmp_path: Path) -> None:
    # The chief lives and sends heartbeats, but its first evaluation never ends.
    patches = {"trainer.training.loop._validate": never_return}
    # Long enough for a busy machine, on which one worker may trace its step well before the other.
    with workers(tmp_path, 2, "--peer-timeout-seconds", 30, patches=patches) as processes:
        wait_for_step(tmp_path, 25)
        processes[1].join(90)
        assert processes[1].exitcode == ExitCode.PEERS, (tmp_path / "said-1").read_text()
    assert "lost another worker" in (tmp_path / "said-1").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("count", "victim"), [(2, 0), (3, 1)], ids=["chief", "worker"])
def test_if_a_worker_is_killed_the_others_exit_within_30_seconds_and_a_new_start_resumes(
    one_worker: Path, tmp_path: Path, count: int, victim: int
) -> None:
    with workers(tmp_path, count) as processes:
        wait_for_step(tmp_path, 30)
        os.kill(processes[victim].pid, signal.SIGKILL)
        codes = exit_codes(processes, 30)
    assert codes == [-signal.SIGKILL if index == victim else ExitCode.PEERS for index in range(count)]
    survivor = next(index for index in range(count) if index != victim)
    assert "lost another worker" in (tmp_path / f"said-{survivor}").read_text()
    if victim:
        assert read_result(tmp_path / "runs" / "r")["exit_code"] == ExitCode.PEERS
    assert checkpoint_files(tmp_path / "runs" / "r" / "checkpoints")
    # One worker is gone for good: the others finish the run. All losses, before and after, are those of one worker.
    run_to_the_end(tmp_path, count - 1)
    assert len(losses(tmp_path)) == len(losses(one_worker))
    np.testing.assert_allclose(losses(one_worker)[:100], losses(tmp_path)[:100], rtol=1e-4)


@pytest.mark.slow
def test_a_signal_to_one_worker_stops_all_of_them_with_the_state_saved(one_worker: Path, tmp_path: Path) -> None:
    with workers(tmp_path, 2) as processes:
        wait_for_step(tmp_path, 30)
        os.kill(processes[1].pid, signal.SIGTERM)
        assert exit_codes(processes, 30) == [ExitCode.STOPPED] * 2
    step = read_rows(tmp_path / "runs" / "r")[-1]["step"]
    assert f"stopped by a signal after step {step}" in (tmp_path / "said-0").read_text()
    run_to_the_end(tmp_path, 1)
    np.testing.assert_allclose(losses(one_worker)[:100], losses(tmp_path)[:100], rtol=1e-4)


@pytest.mark.slow
def test_a_worker_exits_with_69_if_the_chief_dies_before_its_last_checkpoint(tmp_path: Path) -> None:
    """Exit 0 would end this worker for good, and the chief could not train again without it."""
    with workers(tmp_path, 2, "--checkpoint-steps", 0, "--checkpoint-seconds", 0) as processes:
        wait_for_step(tmp_path, 30)
        (tmp_path / "runs" / "r" / "checkpoints").touch()  # The chief cannot write its last checkpoint into a file.
        assert exit_codes(processes, 90) == [ExitCode.IO, ExitCode.PEERS], (tmp_path / "said-1").read_text()
    assert "did not record the run as trained" in (tmp_path / "said-1").read_text()
    (tmp_path / "runs" / "r" / "checkpoints").unlink()
    run_to_the_end(tmp_path, 2)


@pytest.mark.slow
def test_early_stopping_on_the_chief_ends_all_workers(tmp_path: Path) -> None:
    # So small a learning rate changes no prediction: each evaluation is as good as the one before.
    flags = ("--epochs", 5, "--early-stopping-patience", 2, "--learning-rate", 1e-30, "--ema-decay", 0)
    flags = (*flags, "--precision", "auto")  # the chief decides for all
    run_to_the_end(tmp_path, 2, *flags)
    rows = read_rows(tmp_path / "runs" / "r")
    assert 3 <= len([row for row in rows if row["kind"] == "validation"]) < 5


@pytest.mark.slow
def test_a_worker_with_other_settings_is_rejected(tmp_path: Path) -> None:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {"TF_CONFIG": json.dumps(task)}
        said = f"said-{index}"
        processes.append(start_run(tmp_path, *FLAGS, "--seed", index, environment=environment, said=said))
    assert exit_codes(processes, 120) == [ExitCode.PEERS, ExitCode.USAGE]
    assert "other settings or other data than the chief" in (tmp_path / "said-1").read_text()


def test_several_workers_need_the_name_of_the_run(tmp_path: Path, monkeypatch, capsys) -> None:
    task = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    assert main(["train", "--artifacts", str(tmp_path)]) == ExitCode.USAGE
    assert "several workers need one --run NAME" in capsys.readouterr().err
