"""A search over settings: what its trials are, that it goes on where it was, and that it never sees the test split."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from trainer.cli import main
from trainer.config import ConfigError, resolve
from trainer.exit_codes import ExitCode
from trainer.space import Choice, Range, parse, plan, sample
from trainer.versions import live_versions

REPOSITORY = Path(__file__).parents[2]
QUICK = ("--model", "mlp", "--width", "0.25", "--epochs", "0.5", "--min-accuracy", "0", "--run", "s")


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("model=mlp,cnn", Choice("model", ("mlp", "cnn"))),
        ("global_batch_size=32,64", Choice("global_batch_size", (32, 64))),
        ("deterministic=true,false", Choice("deterministic", (True, False))),
        ("dropout=0:0.5", Range("dropout", 0.0, 0.5, is_log=False, is_whole=False)),
        ("learning_rate=1e-4:1e-2:log", Range("learning_rate", 1e-4, 1e-2, is_log=True, is_whole=False)),
        ("early_stopping_patience=1:9", Range("early_stopping_patience", 1, 9, is_log=False, is_whole=True)),
    ],
)
def test_a_text_describes_a_dimension(text, dimension):
    assert parse(text) == dimension


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("dropout", "NAME=A,B,C"),
        ("droput=0:0.5", "a setting of"),
        ("run=a,b", "not part of what is compared"),
        ("dataset=mnist,idx", "not part of what is compared"),
        ("dropout=0:half", "'half' is not a number"),
        ("dropout=0.5:0.1", "LOW < HIGH"),
        ("dropout=0:0.5:log", "0 < LOW"),
        ("dropout=0.1:0.5:cubic", "NAME=LOW:HIGH"),
        ("model=mlp:cnn", "of numbers"),
        ("deterministic=yes,no", "neither true nor false"),
    ],
)
def test_a_wrong_text_is_refused_with_what_is_expected(text, complaint):
    with pytest.raises(ConfigError, match=complaint):
        parse(text)


def test_trials_are_a_function_of_seed_and_number_and_spread_over_their_dimensions():
    dimensions = [parse("learning_rate=1e-4:1e-2:log"), parse("dropout=0:0.5"), parse("model=mlp,lenet,cnn")]
    drawn = [sample(dimensions, 0, trial) for trial in range(300)]
    assert drawn[:5] == [sample(dimensions, 0, trial) for trial in range(5)]
    assert drawn[:5] != [sample(dimensions, 1, trial) for trial in range(5)]
    assert all(1e-4 <= values["learning_rate"] <= 1e-2 and 0 <= values["dropout"] <= 0.5 for values in drawn)
    assert 0.4 < sum(values["learning_rate"] < 1e-3 for values in drawn) / 300 < 0.6
    assert {values["model"] for values in drawn} == {"mlp", "lenet", "cnn"}


def test_the_first_trial_has_the_settings_as_given_and_values_that_cannot_be_are_refused_before_any():
    config = resolve("quickstart", flags={"run": "s"})
    first, *others = plan(config, [parse("dropout=0.1:0.5")], trials=4)
    assert (first.dropout, first.run, first.publish) == (config.dropout, "s-000", False)
    assert len({trial.dropout for trial in others}) == 3
    with pytest.raises(ConfigError, match="dropout is"):
        plan(config, [parse("dropout=1:2")], trials=2)


def test_a_search_ranks_by_validation_alone_goes_on_with_what_is_missing_and_its_best_can_be_published(
    tmp_path, capsys
):
    def tune(trials: int) -> list[dict]:
        flags = [*QUICK, "--artifacts", str(tmp_path), "--trials", str(trials), "--vary", "learning_rate=1e-3,1e30"]
        assert main(["tune", *flags]) == ExitCode.OK
        return json.loads((tmp_path / "tune" / "s" / "trials.json").read_text())

    trials = tune(3)
    assert [Path(trial["run_dir"]).name for trial in trials] == ["s-000", "s-001", "s-002"]
    for trial in trials:
        record = json.loads((Path(trial["run_dir"]) / "result.json").read_text())
        assert "evaluation" not in record
        if trial["settings"]["learning_rate"] == 1e30:
            assert (trial["loss"], record["exit_code"]) == (None, ExitCode.DIVERGED)
        else:
            assert trial["loss"] == record["validation"]["loss"]
            assert record["validation"]["examples"] == 180
    written = {trial["run_dir"]: (Path(trial["run_dir"]) / "result.json").stat().st_mtime_ns for trial in trials}

    more = tune(4)
    assert more[:3] == trials
    assert all((Path(run) / "result.json").stat().st_mtime_ns == at for run, at in written.items())
    with Image.open(tmp_path / "tune" / "s" / "trials.png") as picture:
        assert picture.width > 300

    best = min((trial for trial in more if trial["loss"] is not None), key=lambda trial: trial["loss"])
    assert f"python -m trainer publish {best['run_dir']}" in capsys.readouterr().out
    assert main(["publish", best["run_dir"]]) == ExitCode.OK
    assert len(live_versions(tmp_path / "models" / "digits")) == 1


def test_other_settings_under_the_same_name_and_a_search_in_which_all_diverge_are_refused(tmp_path, capsys):
    flags = ["tune", *QUICK, "--artifacts", str(tmp_path), "--trials", "1", "--vary", "dropout=0:0.5"]
    assert main([*flags, "--learning-rate", "1e30"]) == ExitCode.DIVERGED
    assert "all of the 1 trials diverged" in capsys.readouterr().err
    assert main(flags) == ExitCode.USAGE
    assert "learning_rate was" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_that_is_stopped_goes_on_within_its_trial_and_ends_as_one_left_alone(tmp_path):
    def start(artifacts: Path) -> subprocess.Popen:
        flags = ["--model", "mlp", "--epochs", "8", "--deterministic", "--checkpoint-steps", "16", "--run", "s"]
        command = [sys.executable, "-m", "trainer", "tune", *flags, "--trials", "2", "--artifacts", str(artifacts)]
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def losses(artifacts: Path) -> list[float]:
        return [trial["loss"] for trial in json.loads((artifacts / "tune" / "s" / "trials.json").read_text())]

    assert start(tmp_path / "alone").wait(300) == ExitCode.OK
    stopped = start(tmp_path / "stopped")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "stopped" / "runs").glob("s-001/checkpoints/*.npz")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(stopped.pid, signal.SIGTERM)
    assert stopped.wait(60) == ExitCode.STOPPED
    assert len(losses(tmp_path / "stopped")) == 1
    assert start(tmp_path / "stopped").wait(300) == ExitCode.OK
    assert losses(tmp_path / "stopped") == losses(tmp_path / "alone")
