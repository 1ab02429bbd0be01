"""A search as a user runs it: what it leaves, and that it can be stopped, killed and extended."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.waiting import wait_until
from trainer.cli import main
from trainer.command_line import command_line
from trainer.errors import ExitCode
from trainer.publishing.versions import live_versions
from trainer.runs.lock import locked
from trainer.runs.tracking import read_rows

REPOSITORY = Path(__file__).parents[3]
QUICK = (
    "--model", "mlp", "--width", "0.25", "--epochs", "0.5", "--pen-weight", "0", "--min-accuracy", "0", "--run", "s",
)  # fmt: skip
ALONE = ("--seeds", "1")

KILLED_SEARCHES = int(os.environ.get("KILLED_SEARCHES", 2))
"""5 in `make soak`."""


def tune(artifacts: Path, *flags: object) -> int:
    return main(["tune", *QUICK, "--artifacts", str(artifacts), *map(str, flags)])


def read_trials(artifacts: Path) -> list[dict[str, Any]]:
    return json.loads((artifacts / "tune" / "s" / "trials.json").read_text())


def read_trial(run_dir: str | Path) -> dict[str, Any]:
    return json.loads((Path(run_dir) / "trial.json").read_text())


@pytest.mark.usefixtures("quick_publish")
def test_a_search_ranks_by_validation_alone_is_extended_without_training_again_and_its_best_is_published(
    tmp_path, capsys
):
    varied = ("--vary", "learning_rate=1e-3,1e30", "--vary", "dropout=0:0.1", *ALONE)
    assert tune(tmp_path, "--trials", 3, *varied) == ExitCode.OK
    trials = read_trials(tmp_path)
    assert [Path(trial["run_dir"]).name for trial in trials] == ["s-000", "s-001", "s-002"]
    assert {trial["settings"]["learning_rate"] for trial in trials} == {4e-3, 1e-3, 1e30}, "the given and every choice"
    for trial in trials:
        assert not (Path(trial["run_dir"]) / "result.json").exists()
        record = read_trial(trial["run_dir"])
        assert "evaluation" not in record
        if trial["settings"]["learning_rate"] == 1e30:
            assert (trial["loss"], trial["outcome"], record["exit_code"]) == (None, "diverged", ExitCode.DIVERGED)
        else:
            assert trial["loss"] == record["validation"]["loss"]
            assert record["validation"]["examples"] == 180
            assert 0 < trial["margin_95"] < 1
    times = [read_trial(trial["run_dir"]) for trial in trials]
    assert all(before["finished"] <= after["started"] for before, after in itertools.pairwise(times))
    written = {trial["run_dir"]: (Path(trial["run_dir"]) / "trial.json").stat().st_mtime_ns for trial in trials}

    assert tune(tmp_path, "--trials", 4, *varied) == ExitCode.OK
    more = read_trials(tmp_path)
    assert len(more) == 4
    assert more[:3] == trials
    assert all((Path(run) / "trial.json").stat().st_mtime_ns == at for run, at in written.items())
    for name in ("trials.png", "importances.png"):
        if (file := tmp_path / "tune" / "s" / name).is_file():
            with Image.open(file) as picture:
                assert picture.width > 300
    assert {folder.name for folder in (tmp_path / "tune" / "s" / "tensorboard").iterdir()} == {
        f"s-{number:03}" for number in range(4)
    }

    best = min((trial for trial in more if trial["loss"] is not None), key=lambda trial: trial["loss"])
    said = capsys.readouterr().out
    assert command_line("publish", best["run_dir"]) in said
    assert main(["publish", best["run_dir"]]) == ExitCode.OK
    assert len(live_versions(tmp_path / "models" / "digits")) == 1
    assert " steps of 64 in " in (Path(best["run_dir"]) / "model_card.md").read_text()


def test_the_best_few_are_trained_with_further_seeds_side_by_side(tmp_path, capsys):
    # So little dropout changes nothing, so the two finalists cannot be told apart.
    flags = ("--trials", 3, "--vary", "dropout=0:1e-6", "--finalists", 2, "--seeds", 2, "--jobs", 2)
    assert tune(tmp_path, *flags) == ExitCode.OK
    trials = read_trials(tmp_path)
    finalists = [trial for trial in trials if len(trial["seeds"]) == 2]
    assert len(finalists) == 2
    for trial in finalists:
        assert [seed["seed"] for seed in trial["seeds"]] == [0, 1]
        assert Path(trial["seeds"][1]["run_dir"]).name == f"{Path(trial['run_dir']).name}-seed1"
        assert trial["loss"] == pytest.approx(sum(seed["loss"] for seed in trial["seeds"]) / 2)
        assert trial["seeds"][0]["loss"] != trial["seeds"][1]["loss"]
    assert (tmp_path / "tune" / "s" / "s-001.log").is_file(), "the output of trials that are trained at once"
    said = capsys.readouterr().out
    assert "180 validation digits and 2 seed(s) cannot tell" in said
    table = [line.split()[:2] for line in said.splitlines() if line.strip().startswith("s-0")]
    assert sorted(seeds for _, seeds in table[-3:]) == ["1", "2", "2"]
    assert tune(tmp_path, *flags) == ExitCode.OK
    assert read_trials(tmp_path) == trials


def test_a_trial_that_the_system_kills_does_not_block_its_search(tmp_path):
    """A trial that ran out of memory ended its search, and ended it again after every resume."""
    killed: list[int] = []

    def kill() -> None:
        def workers() -> list[int]:
            running = (tmp_path / "runs" / "s-001").is_dir() and not (
                tmp_path / "runs" / "s-001" / "trial.json"
            ).exists()
            return children_at_work(tmp_path) if running else []

        wait_until(lambda: killed.extend(workers()) or killed, timeout_seconds=120)
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    flags = ("--trials", 3, "--vary", "dropout=0:0.1", *ALONE)
    assert tune(tmp_path, *flags, "--epochs", 3) == ExitCode.OK
    killer.join()
    assert [trial["outcome"] for trial in read_trials(tmp_path)] == ["trained", "out of memory", "trained"]
    record = read_trial(tmp_path / "runs" / "s-001")
    assert record["exit_code"] == ExitCode.MEMORY
    assert "killed by SIGKILL" in record["message"]


def children_at_work(artifacts: Path) -> list[int]:
    """The processes that hold a file open in a run's folder of `artifacts`, except this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            files = [os.path.realpath(file) for file in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(file.startswith(f"{artifacts}/runs/") for file in files):
            found.append(int(process.name))
    return found


def test_other_settings_under_the_same_name_and_a_search_without_a_result_are_refused(tmp_path, capsys):
    flags = ("--trials", 1, "--vary", "dropout=0:0.5", *ALONE)
    assert tune(tmp_path, *flags, "--learning-rate", 1e30) == ExitCode.DIVERGED
    assert "none of the 1 trials could be trained to its end (diverged)" in capsys.readouterr().err
    assert tune(tmp_path, *flags) == ExitCode.USAGE
    assert "learning_rate was" in capsys.readouterr().err


def test_a_run_of_train_is_left_alone_and_a_search_that_cannot_write_does_not_begin(finished, tmp_path, capsys):
    shutil.copytree(finished / "runs" / "r", tmp_path / "runs" / "s-000")
    before = (tmp_path / "runs" / "s-000" / "result.json").read_bytes()
    assert tune(tmp_path, "--trials", 1) == ExitCode.USAGE
    assert "is a run of `train`" in capsys.readouterr().err
    assert (tmp_path / "runs" / "s-000" / "result.json").read_bytes() == before

    (tmp_path / "file").touch()
    assert tune(tmp_path / "file", "--trials", 1) == ExitCode.USAGE
    assert "cannot write" in capsys.readouterr().err


def test_two_searches_of_one_name_do_not_run_at_once(tmp_path, capsys):
    (tmp_path / "tune" / "s").mkdir(parents=True)
    with locked(tmp_path / "tune" / "s" / ".lock", busy=""):
        assert tune(tmp_path, "--trials", 1) == ExitCode.IO
    assert "another process runs this search" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--trials", 0), "trials is 0; expected a number above 0"),
        (("--jobs", -1), "jobs is -1"),
        (("--vary", "dropout=0:2"), "dropout is 2.0"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_written(tmp_path, capsys, flags, complaint):
    assert tune(tmp_path, *flags) == ExitCode.USAGE
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_optuna_tune_says_how_to_install_it(tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "optuna" or name.startswith("trainer.tuning.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert tune(tmp_path, "--trials", 1) == ExitCode.USAGE
    assert "pip install '.[tune]'" in capsys.readouterr().err


def start(artifacts: Path, *flags: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "trainer", "tune", "--run", "s", "--artifacts", str(artifacts), *map(str, flags)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_search_that_is_stopped_is_resumed_within_its_trial_and_ends_as_one_left_alone(tmp_path):
    flags = (
        "--model",
        "mlp",
        "--pen-weight",
        0,
        "--epochs",
        8,
        "--deterministic",
        "--checkpoint-steps",
        16,
        "--trials",
        2,
        *ALONE,
    )

    def losses(artifacts: Path) -> list[float]:
        return [trial["loss"] for trial in read_trials(artifacts)]

    assert start(tmp_path / "alone", *flags).wait(300) == ExitCode.OK
    stopped = start(tmp_path / "stopped", *flags)
    wait_until(lambda: list((tmp_path / "stopped" / "runs").glob("s-001/checkpoints/*.npz")), timeout_seconds=120)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(180) == ExitCode.STOPPED
    assert len(losses(tmp_path / "stopped")) == 1
    assert start(tmp_path / "stopped", *flags).wait(300) == ExitCode.OK
    assert losses(tmp_path / "stopped") == losses(tmp_path / "alone")


@pytest.mark.slow
def test_a_search_that_is_killed_several_times_loses_and_repeats_no_trial(tmp_path):
    count_of_trials = 4 * KILLED_SEARCHES
    network = ("--model", "mlp", "--width", 0.25, "--pen-weight", 0, "--epochs", 4)
    flags = (*network, "--checkpoint-steps", 16, "--trials", count_of_trials, *ALONE)
    generator, ended = random.Random(0), {}
    runs = tmp_path / "runs"

    def records() -> dict[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in runs.glob("s-*/trial.json")}

    for count in range(2, count_of_trials, 4):
        search = start(tmp_path, *flags)
        wait_until(lambda count=count: len(records()) >= count, timeout_seconds=300)
        # Somewhere in the next trial, whose folder holds its first rows by then.
        wait_until(lambda: any(not (run / "trial.json").exists() for run in runs.glob("s-*")), timeout_seconds=60)
        threading.Event().wait(generator.uniform(0, 2))
        search.kill()
        search.wait()
        wait_until(lambda: not children_at_work(tmp_path), timeout_seconds=20)
        ended |= records()
    assert start(tmp_path, *flags).wait(600) == ExitCode.OK

    trials = read_trials(tmp_path)
    assert [trial["number"] for trial in trials] == list(range(count_of_trials))
    assert {run.name for run in runs.iterdir()} == {f"s-{number:03}" for number in range(count_of_trials)}
    assert {name: records()[name] for name in ended} == ended, "what had ended was not trained again"
    assert len({tuple(trial["settings"].values()) for trial in trials}) == count_of_trials
    for trial in trials:
        steps = [row["step"] for row in read_rows(Path(trial["run_dir"])) if row["kind"] == "train"]
        assert steps == sorted(set(steps)), "a resumed trial continues from its checkpoint"
    losses = [trial["loss"] for trial in trials if trial["loss"] is not None]
    assert min(losses) <= trials[0]["loss"]
