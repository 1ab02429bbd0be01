"""The guarantee: a run that is killed and resumed ends with the same bits as an uninterrupted run."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from serving.contract import MODEL_NAME
from tests.trainer.conftest import read_result, run_trainer, write_idx
from tests.trainer.runner import QUICK_PUBLISH, UNREPORTED, outcome, start_run, wait_for_step
from trainer.command_line import command_line
from trainer.errors import ExitCode
from trainer.publishing.versions import live_versions
from trainer.runs.checkpoint import checkpoint_files
from trainer.runs.tracking import read_rows

# A second of training with every feature that has state.
STATEFUL = (
    "--deterministic", "--epochs", 6, "--width", 0.25, "--dropout", 0.3, "--steps-per-call", 4, "--checkpoint-steps", 8,
    "--early-stopping-patience", 5, "--evaluate-every", 14, "--profile", "58:66", "--min-accuracy", 0.3, "--pen-weight", 0,
    "--histograms",
)  # fmt: skip
QUIETLY = (*STATEFUL, "--no-publish")
KILLED_RUNS = int(os.environ.get("KILLED_RUNS", 2))
KILLED_RUN: Mapping[str, Any] = {} if "KILLED_RUNS" in os.environ else QUICK_PUBLISH
"""Patches of runs that are killed at random instants; `make soak` runs everything."""


def run_to_the_end(artifacts: Path, *flags: object, patches: Mapping[str, Any] = UNREPORTED) -> None:
    process = start_run(artifacts, *flags, patches=patches)
    process.join(300)
    assert process.exitcode == ExitCode.OK, (artifacts / "said").read_text()


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name in one if one[name] != other[name]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The artefacts of an uninterrupted run."""
    artifacts = tmp_path_factory.mktemp("alone")
    run_to_the_end(artifacts, *QUIETLY)
    return artifacts


@pytest.fixture
def images(splits):
    return splits.test.images


def test_a_run_stopped_by_a_signal_exits_with_75_publishes_nothing_is_resumed_and_ends_with_the_same_bits(
    alone: Path, tmp_path: Path, images
) -> None:
    process = start_run(tmp_path, *STATEFUL)
    wait_for_step(tmp_path, 40)
    os.kill(process.pid, signal.SIGTERM)
    process.join(300)
    said = (tmp_path / "said").read_text()
    assert process.exitcode == ExitCode.STOPPED, said
    assert "stopped by a signal after step" in said
    assert "The state is saved" in said
    assert said.splitlines()[-1] == (
        "resume it with: " + command_line("train", "--config", f"{tmp_path}/runs/r/config.json", "--run", "r")
    )
    assert read_result(tmp_path / "runs" / "r")["exit_code"] == ExitCode.STOPPED
    assert not live_versions(tmp_path / "models" / MODEL_NAME)
    assert checkpoint_files(tmp_path / "runs" / "r" / "checkpoints")

    run_to_the_end(tmp_path, *QUIETLY)
    assert differences(outcome(alone, images), outcome(tmp_path, images)) == []


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """The artefacts of a run that was killed during training; not to be changed."""
    artifacts = tmp_path_factory.mktemp("killed")
    process = start_run(artifacts, *QUIETLY)
    wait_for_step(artifacts, 60)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return artifacts


def test_with_a_damaged_newest_checkpoint_the_run_resumes_from_the_one_before(
    alone: Path, killed: Path, tmp_path: Path, images
) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    newest = checkpoint_files(tmp_path / "runs" / "r" / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    run_to_the_end(tmp_path, *QUIETLY)
    assert f"{newest} is damaged" in (tmp_path / "said").read_text()
    assert differences(outcome(alone, images), outcome(tmp_path, images)) == []


def test_a_trained_run_started_again_skips_training_and_publishes_once(alone: Path, tmp_path: Path, images) -> None:
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    patches = {**UNREPORTED, **QUICK_PUBLISH}
    run_to_the_end(tmp_path, *STATEFUL, patches=patches)
    published = outcome(tmp_path, images)
    assert differences(outcome(alone, images), published) == ["versions", "probabilities"]
    times = [row["time"] for row in read_rows(tmp_path / "runs" / "r")]
    assert times == [row["time"] for row in read_rows(alone / "runs" / "r")], "no step was trained again"

    (tmp_path / "runs" / "r" / "result.json").unlink()  # As after a kill just before this file was written.
    run_to_the_end(tmp_path, *STATEFUL, patches=patches)
    assert differences(published, outcome(tmp_path, images)) == []
    assert read_result(tmp_path / "runs" / "r")["outcome"].startswith("Published before, in")


def test_a_killed_run_is_resumed_ends_with_the_same_bits_and_tensorboard_shows_each_step_once(
    alone: Path, killed: Path, tmp_path: Path, images
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    run_to_the_end(tmp_path, *QUIETLY)
    assert differences(outcome(alone, images), outcome(tmp_path, images)) == []
    rows = read_rows(tmp_path / "runs" / "r")
    for kind, folder, tag in (
        ("train", "train", "loss"),
        ("validation", "validation", "loss"),
        ("weights", "validation", "weights/conv1/kernel"),
    ):
        steps = [row["step"] for row in rows if row["kind"] == kind]
        assert steps == sorted(set(steps))
        events = EventAccumulator(str(tmp_path / "runs" / "r" / folder), size_guidance={"tensors": 0})
        events.Reload()
        assert [event.step for event in events.Tensors(tag)] == steps
        assert [event.wall_time for event in events.Tensors(tag)] == [
            row["time"] for row in rows if row["kind"] == kind
        ]


def test_other_settings_are_refused_by_name_and_change_no_file(alone: Path, tmp_path: Path) -> None:
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    done = run_trainer("train", "--artifacts", tmp_path, "--run", "r", *QUIETLY, "--seed", 1, "--dropout", 0.1)
    assert done.returncode == ExitCode.USAGE
    assert "dropout was 0.3 and is 0.1, seed was 0 and is 1" in done.stderr
    assert before == {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}


def test_other_data_are_refused_by_name(tmp_path: Path, splits) -> None:
    data = tmp_path / "data"
    data.mkdir()
    flags = ("--dataset", "idx", "--data-dir", data, *QUIETLY, "--model", "mlp")
    for name, split in (("train", splits.train), ("t10k", splits.test)):
        write_idx(data / f"{name}-images-idx3-ubyte", split.images)
        write_idx(data / f"{name}-labels-idx1-ubyte", split.labels)
    process = start_run(tmp_path, *flags)
    wait_for_step(tmp_path, 40)
    process.kill()
    process.join()
    write_idx(data / "train-images-idx3-ubyte", splits.train.images[::-1])
    write_idx(data / "train-labels-idx1-ubyte", splits.train.labels[::-1])
    process = start_run(tmp_path, *flags)
    process.join(300)
    assert process.exitcode == ExitCode.USAGE
    assert "train data was '" in (tmp_path / "said").read_text()


def test_a_run_in_progress_is_not_started_twice(tmp_path: Path) -> None:
    flags = (*QUIETLY, "--model", "mlp", "--epochs", 1000)
    process = start_run(tmp_path, *flags)
    wait_for_step(tmp_path, 1)
    second = start_run(tmp_path, *flags)
    second.join(300)
    assert second.exitcode == ExitCode.IO
    assert "another process is training this run" in (tmp_path / "said").read_text()
    process.kill()
    process.join()


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_runs_killed_at_random_instants_end_bit_for_bit_as_one_left_alone(
    tmp_path: Path, images, replicas: int
) -> None:
    flags = (*STATEFUL, "--replicas", replicas)
    undisturbed = tmp_path / "undisturbed"
    began = time.monotonic()
    run_to_the_end(undisturbed, *flags, patches=KILLED_RUN)
    longest = time.monotonic() - began
    expected = outcome(undisturbed, images)

    generator, kills, stages = random.Random(replicas), 0, {}
    for number in range(KILLED_RUNS):
        artifacts = tmp_path / f"killed-{number}"
        for _ in range(generator.choice([1, 1, 2, 3])):
            process = start_run(artifacts, *flags, patches=KILLED_RUN)
            # The first run is killed in training; another may end before its time to be killed has come.
            if not number or generator.random() < 0.5:
                wait_for_step(artifacts, generator.randrange(100))
                process.join(generator.uniform(0, 0.05))
            else:
                process.join(generator.uniform(0, longest))
            if process.exitcode is not None:
                break
            os.kill(process.pid, signal.SIGKILL if number % 2 else signal.SIGTERM)
            process.join(300)
            kills += 1
            stage = stage_of(artifacts)
            stages[stage] = stages.get(stage, 0) + 1
            assert process.exitcode in (-signal.SIGKILL, -signal.SIGTERM, ExitCode.STOPPED, ExitCode.OK)
        run_to_the_end(artifacts, *flags, patches=KILLED_RUN)
        assert differences(expected, outcome(artifacts, images)) == [], f"run {number}: {artifacts}"
        shutil.rmtree(artifacts)
    print(json.dumps({"replicas": replicas, "runs": KILLED_RUNS, "kills": kills, "killed_in": stages}))


def stage_of(artifacts: Path) -> str:
    """How far a killed run had come."""
    run, models = artifacts / "runs" / "r", artifacts / "models" / "digits"
    if list(models.glob("[0-9]*")):
        return "published"
    if list(models.glob(".staging-*")):
        return "publishing"
    if (run / "model.weights.h5").exists():
        return "evaluating"
    if list((run / "checkpoints").glob(".partial-*")):
        return "writing a checkpoint"
    return "training" if read_rows(run) else "starting"
