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
from trainer.errors import ExitCode
from trainer.publishing.versions import live_versions
from trainer.tuning.search_space import Choice, Range, parse, plan, sample

REPOSITORY = Path(__file__).parents[3]
QUICK = (
    "--model", "mlp", "--width", "0.25", "--epochs", "0.5", "--pen-weight", "0", "--min-accuracy", "0", "--run", "s",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("model=mlp,cnn", Choice("model", ("mlp", "cnn"))),
        ("global_batch_size=32,64", Choice("global_batch_size", (32, 64))),
        ("jit_compile=true,false", Choice("jit_compile", (True, False))),
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
        ("run=a,b", "must be the same in all trials"),
        ("dataset=mnist,idx", "must be the same in all trials"),
        ("deterministic=true,false", "must be the same in all trials"),
        ("dropout=0:half", "'half' is not a number"),
        ("learning_rate=-inf:1", "'-inf' is too large"),
        ("seed=0.5:2", "'0.5' is not a number"),
        ("dropout=0.5:0.1", "LOW < HIGH"),
        ("dropout=0:0.5:log", "0 < LOW"),
        ("dropout=0.1:0.5:cubic", "NAME=LOW:HIGH"),
        ("model=mlp:cnn", "of numbers"),
        ("jit_compile=yes,no", "neither true nor false"),
    ],
)
def test_a_wrong_text_is_refused_with_what_is_expected(text, complaint):
    with pytest.raises(ConfigError, match=complaint):
        parse(text)


def test_trials_are_a_function_of_seed_and_number_and_lie_evenly_in_their_dimensions():
    texts = ["learning_rate=1e-4:1e-2:log", "dropout=0:0.5", "model=mlp,lenet,cnn", "early_stopping_patience=0:2"]
    dimensions = [parse(text) for text in texts]
    drawn = [sample(dimensions, 0, number) for number in range(1, 301)]
    assert drawn[:5] == [sample(dimensions, 0, number) for number in range(1, 6)]
    assert drawn[:5] != [sample(dimensions, 1, number) for number in range(1, 6)]
    assert all(1e-4 <= values["learning_rate"] <= 1e-2 and 0 <= values["dropout"] <= 0.5 for values in drawn)
    for few in (drawn[:12], drawn):
        assert 0.4 < sum(values["learning_rate"] < 1e-3 for values in few) / len(few) < 0.6
        assert len({values["dropout"] for values in few}) > 0.9 * len(few)
        for name, value in (("model", "mlp"), ("model", "cnn"), ("early_stopping_patience", 0)):
            assert 0.2 < sum(values[name] == value for values in few) / len(few) < 0.45


@pytest.mark.parametrize("text", ["ema_decay=0.99:0.9999", "ema_decay=0.9951:0.9995:log", "learning_rate=1e-9:2e-9"])
def test_a_narrow_range_is_told_apart_and_kept_to(text):
    dimension = parse(text)
    drawn = [sample([dimension], 0, number)[dimension.name] for number in range(100)]
    assert all(dimension.low <= value <= dimension.high for value in drawn)
    assert all(type(value) is float for value in drawn)
    assert len(set(drawn)) > 30
    assert len(plan(resolve("quickstart"), [dimension], trials=100)) > 30


def test_the_first_trial_has_the_settings_as_given_and_none_has_those_of_another():
    config = resolve("quickstart", flags={"run": "s"})
    first, *others = plan(config, [parse("dropout=0.1:0.5")], trials=4)
    assert (first.dropout, first.run) == (config.dropout, "s-000")
    assert len({trial.dropout for trial in others}) == 3
    different = plan(config, [parse("model=mlp,cnn"), parse("early_stopping_patience=0:1")], trials=50)
    assert len(different) == 4
    more = plan(config, [parse("dropout=0.1:0.5")], trials=9)
    assert more[:4] == [first, *others]


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (["dropout=0.1:2"], "dropout is"),
        (["model=cnn,lente"], "model is 'lente'"),
        (["seed=-5:5"], "seed is -5"),
        (["dropout=0:0.5", "dropout=0:0.1"], "given twice"),
    ],
)
def test_values_that_cannot_be_are_refused_before_any_trial(texts, complaint):
    with pytest.raises(ConfigError, match=complaint):
        plan(resolve("quickstart"), [parse(text) for text in texts], trials=2)


def test_a_search_ranks_by_validation_alone_goes_on_with_what_is_missing_and_its_best_can_be_published(
    tmp_path, capsys
):
    def tune(trials: int) -> list[dict]:
        varied = ["--vary", "learning_rate=1e-3,1e30", "--vary", "dropout=0:0.1"]
        flags = [*QUICK, "--artifacts", str(tmp_path), "--trials", str(trials), *varied]
        assert main(["tune", *flags]) == ExitCode.OK
        return json.loads((tmp_path / "tune" / "s" / "trials.json").read_text())

    trials = tune(3)
    assert [Path(trial["run_dir"]).name for trial in trials] == ["s-000", "s-001", "s-002"]
    for trial in trials:
        assert not (Path(trial["run_dir"]) / "result.json").exists()
        record = json.loads((Path(trial["run_dir"]) / "trial.json").read_text())
        assert "evaluation" not in record
        if trial["settings"]["learning_rate"] == 1e30:
            assert (trial["loss"], record["exit_code"]) == (None, ExitCode.DIVERGED)
        else:
            assert trial["loss"] == record["validation"]["loss"]
            assert record["validation"]["examples"] == 180
    written = {trial["run_dir"]: (Path(trial["run_dir"]) / "trial.json").stat().st_mtime_ns for trial in trials}

    more = tune(4)
    assert more[:3] == trials
    assert all((Path(run) / "trial.json").stat().st_mtime_ns == at for run, at in written.items())
    with Image.open(tmp_path / "tune" / "s" / "trials.png") as picture:
        assert picture.width > 300

    best = min((trial for trial in more if trial["loss"] is not None), key=lambda trial: trial["loss"])
    assert f"python -m trainer publish {best['run_dir']}" in capsys.readouterr().out
    assert main(["publish", best["run_dir"]]) == ExitCode.OK
    assert len(live_versions(tmp_path / "models" / "digits")) == 1
    assert " steps of 64 in " in (Path(best["run_dir"]) / "model_card.md").read_text()
    assert tune(4) == more


def test_other_settings_under_the_same_name_and_a_search_in_which_all_diverge_are_refused(tmp_path, capsys):
    flags = ["tune", *QUICK, "--artifacts", str(tmp_path), "--trials", "1", "--vary", "dropout=0:0.5"]
    assert main([*flags, "--learning-rate", "1e30"]) == ExitCode.DIVERGED
    assert "all of the 1 trials diverged" in capsys.readouterr().err
    assert main(flags) == ExitCode.USAGE
    assert "learning_rate was" in capsys.readouterr().err


def test_a_run_of_train_is_left_alone_and_a_search_that_cannot_write_does_not_begin(tmp_path, capsys):
    flags = [*QUICK, "--artifacts", str(tmp_path)]
    assert main(["train", *flags[:-4], "--run", "s-000", "--artifacts", str(tmp_path), "--no-publish"]) == ExitCode.OK
    before = (tmp_path / "runs" / "s-000" / "result.json").read_bytes()
    assert main(["tune", *flags, "--trials", "1"]) == ExitCode.USAGE
    assert "is a run of `train`" in capsys.readouterr().err
    assert (tmp_path / "runs" / "s-000" / "result.json").read_bytes() == before

    (tmp_path / "tune").touch()
    assert main(["tune", *flags[:-4], "--run", "t", "--artifacts", str(tmp_path), "--trials", "1"]) == ExitCode.USAGE
    assert "cannot write" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "t-000").exists()


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
