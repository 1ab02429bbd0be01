"""`train --seeds N`: what it measures, and that it can be stopped, killed and extended."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import REPOSITORY, read_result, run_trainer
from tests.waiting import wait_until
from trainer.cli import main
from trainer.command_line import command_line
from trainer.errors import ExitCode
from trainer.runs.checkpoint import checkpoint_files
from trainer.runs.tracking import read_rows
from trainer.seeds import summarize

QUICK = ("--model", "mlp", "--width", 0.25, "--epochs", 0.5, "--pen-weight", 0, "--deterministic")


RESUMED = (
    "--model", "mlp", "--pen-weight", 0, "--epochs", 8, "--deterministic", "--checkpoint-steps", 16,
)  # fmt: skip


def train(artifacts: Path, *flags: object) -> int:
    return main([*map(str, ("train", *QUICK, "--run", "m", "--artifacts", artifacts, *flags))])


def train_one(artifacts: Path, run: str, seed: int) -> None:
    """Train a run without `--seeds`, in a process of its own: `--deterministic` stays on in a process."""
    done = run_trainer("train", *QUICK, "--run", run, "--seed", seed, "--no-publish", "--artifacts", artifacts)
    assert done.returncode == ExitCode.OK, done.stderr


def read_summary(artifacts: Path) -> dict[str, Any]:
    return json.loads((artifacts / "seeds" / "m.json").read_text())


def changed_at(artifacts: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in artifacts.glob("runs/*/result.json")}


def table_of(text: str) -> list[list[str]]:
    """The cells of the rows from the heading to the standard deviation."""
    rows = [line.split() for line in text.splitlines()]
    start = rows.index(["seed", "test", "accuracy", "training", "s"])
    return rows[start + 1 : next(i for i, row in enumerate(rows) if row[:1] == ["sd"]) + 1]


@pytest.mark.slow
def test_each_seed_is_a_run_of_train_none_is_published_and_more_seeds_train_only_the_new_ones(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert train(tmp_path, "--seeds", 2, "--seed", 5) == ExitCode.OK
    said = capfd.readouterr().out
    assert not (tmp_path / "models").exists()
    assert command_line("publish", tmp_path / "runs" / "m-seed5") in said.splitlines()[-1]
    train_one(tmp_path, "alone", seed=6)
    alone = read_result(tmp_path / "runs" / "alone")
    summary = read_summary(tmp_path)
    assert [seed["seed"] for seed in summary["seeds"]] == [5, 6]
    assert summary["seeds"][1]["test_accuracy"] == alone["evaluation"]["accuracy"]
    assert summary["seeds"][1]["training_seconds"] > 0
    assert {"machine", "tensorflow", "revision"} <= set(summary["seeds"][0]["environment"])
    (five, six), mean = (seed["test_accuracy"] for seed in summary["seeds"]), summary["test_accuracy"]["mean"]
    assert mean == pytest.approx((five + six) / 2)
    table = table_of(said)
    assert [row[0] for row in table] == ["5", "6", "mean", "sd"]
    assert table[2][1] == f"{mean:.2%}"[:-1]

    before = changed_at(tmp_path)
    capfd.readouterr()
    assert train(tmp_path, "--seeds", 2, "--seed", 5) == ExitCode.OK
    assert table_of(capfd.readouterr().out) == table
    assert changed_at(tmp_path) == before, "nothing was trained again"
    assert train(tmp_path, "--seeds", 3, "--seed", 5) == ExitCode.OK
    after = changed_at(tmp_path)
    assert set(after) - set(before) == {"m-seed7"}
    assert {name: after[name] for name in before} == before
    assert len(read_summary(tmp_path)["seeds"]) == 3


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--seeds", 1), "--seeds is 1; expected at least 2"),
        (("--seeds", 2, "--publish"), "--seeds with --publish: expected one of them"),
        (("--seeds", 2, "--seed", 2**32 - 1), "seed is 4294967296"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture, flags: tuple[object, ...], complaint: str
) -> None:
    assert train(tmp_path, *flags) == ExitCode.USAGE
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_several_workers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    assert train(tmp_path, "--seeds", 2) == ExitCode.USAGE
    assert "--seeds runs on one machine" in capsys.readouterr().err


def test_a_seed_that_fails_ends_the_measurement_with_its_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert train(tmp_path, "--seeds", 2, "--learning-rate", 1e30, "--warmup-fraction", 0) == ExitCode.DIVERGED
    assert "error: m-seed0: the training loss became" in capfd.readouterr().err
    assert not (tmp_path / "seeds").exists()
    assert set(changed_at(tmp_path)) == {"m-seed0"}


def test_a_run_with_other_settings_under_the_same_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    train_one(tmp_path, "m-seed0", seed=0)
    before = changed_at(tmp_path)
    assert train(tmp_path, "--seeds", 2, "--dropout", 0.1) == ExitCode.USAGE
    assert "run 'm-seed0' cannot be resumed: dropout was 0.0 and is 0.1" in capsys.readouterr().err
    assert changed_at(tmp_path) == before


def start(artifacts: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "trainer", "train", "--run", "m", "--artifacts", artifacts, *RESUMED]
    command += ["--seeds", 2]
    return subprocess.Popen(list(map(str, command)), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


def run_to_the_end(artifacts: Path) -> list[float]:
    """Return the test accuracies."""
    process = start(artifacts)
    _, said = process.communicate(timeout=600)
    assert process.returncode == ExitCode.OK, said
    return [seed["test_accuracy"] for seed in read_summary(artifacts)["seeds"]]


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return run_to_the_end(tmp_path_factory.mktemp("alone"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_measurement_typed_again_resumes_the_unfinished_seed_and_ends_as_one_left_alone(
    tmp_path: Path, left_alone: list[float], number: int
) -> None:
    process = start(tmp_path)
    wait_until(lambda: checkpoint_files(tmp_path / "runs" / "m-seed1" / "checkpoints"), timeout_seconds=300)
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    if number == signal.SIGTERM:
        first = tmp_path / "runs" / "m-seed0" / "config.json"
        assert process.returncode == ExitCode.STOPPED
        assert said.endswith(f"resume with: {command_line('train', '--config', first, '--seeds', 2, '--run', 'm')}\n")
    before = changed_at(tmp_path)["m-seed0"]

    assert run_to_the_end(tmp_path) == left_alone
    assert changed_at(tmp_path)["m-seed0"] == before
    steps = [row["step"] for row in read_rows(tmp_path / "runs" / "m-seed1") if row["kind"] == "train"]
    assert steps == sorted(set(steps)), "the unfinished seed was resumed from its checkpoint"


def test_the_interval_of_the_mean_is_that_of_students_t() -> None:
    # 95 % quantile for 2 degrees of freedom: 4.303; sd 0.000577; 4.303 * 0.000577 / sqrt(3) = 0.001434.
    summary = summarize([0.9920, 0.9930, 0.9930])
    assert summary.mean == pytest.approx(0.992667, abs=1e-6)
    assert summary.sd == pytest.approx(0.000577, abs=1e-6)
    assert summary.interval == pytest.approx((0.991232, 0.994101), abs=1e-6)


def test_the_interval_stays_within_0_and_1_and_equal_accuracies_give_a_point() -> None:
    assert summarize([0.98, 1.0]).interval[1] == 1.0
    assert summarize([0.5, 0.5]).interval == (0.5, 0.5)
