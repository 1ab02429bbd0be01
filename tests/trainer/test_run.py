"""Whole runs, as a user starts them."""

import errno
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.contract import MODEL_NAME
from tests.trainer.conftest import SHORT, read_result, run_trainer
from tests.trainer.runner import QUICK_PUBLISH, UNREPORTED, start_forked
from tests.waiting import wait_until
from trainer.cli import main
from trainer.command_line import command_line
from trainer.errors import ExitCode
from trainer.publishing.versions import live_versions
from trainer.runs.console import SILENT
from trainer.runs.result import RunResult

TENSORBOARD = ("train", "validation")
REFUSED = ("--epochs", 0.2, "--width", 0.25, "--pen-weight", 0, "--run", "r")
"""Flags of a run whose accuracy is below the gate's minimum of every preset."""


def test_a_run_leaves_everything_in_its_folder_and_says_where(finished: Path) -> None:
    run = finished / "runs" / "r"
    expected = {"config.json", "metrics.jsonl", "result.json", "report.html", "model_card.md", "model.weights.h5"}
    expected |= {"predictions.npz"}
    assert expected | {"figures", "train", "validation", "checkpoints", ".lock"} == {
        child.name for child in run.iterdir()
    }
    pictures = {"curves", "samples", "worst_mistakes", "confusion", "reliability"}
    assert {path.stem for path in (run / "figures").iterdir()} == pictures
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (run / "figures").iterdir())
    said = (finished / "stdout").read_text()
    for part in ("Test accuracy", "Published as version", str(run / "report.html"), f"tensorboard --logdir {finished}"):
        assert part in said
    report = (run / "report.html").read_text()
    assert report.count("<svg") == 4
    assert not re.search(r'(src|href)="(?!data:|#)', report), "the page loads nothing"
    assert "revision" in report


def test_result_json_tells_the_outcome_and_the_version(finished: Path) -> None:
    result = read_result(finished / "runs" / "r")
    assert (result["exit_code"], result["status"]) == (0, "ok")
    assert [result["published"]["version"]] == live_versions(finished / "models" / MODEL_NAME)
    assert result["evaluation"]["examples"] == 360
    assert result["published"]["check"]["largest_difference"] <= 1e-5, "of the fresh process, pictures included"


def test_standard_error_has_the_facts_one_line_per_evaluation_and_the_phases(finished: Path) -> None:
    lines = (finished / "stderr").read_text().splitlines()
    # pytest's folders are closed to other users, which `publish` warns about.
    lines = [line for line in lines if "server that runs as another user" not in line]
    resume = command_line("train", "--config", f"{finished}/runs/r/config.json", "--run", "r")
    assert lines[:4] == [
        f"run        {finished}/runs/r",
        f"resume     {resume}",
        "Loading TensorFlow ...",
        "Loading optdigits ...",
    ]
    evaluations = [line for line in lines if "validation accuracy" in line]
    assert [line[:11] for line in evaluations] == ["epoch 1.0/3", "epoch 2.0/3", "epoch 3.0/3"]
    assert lines[lines.index(evaluations[-1]) + 1 :] == [
        "Evaluating on 360 test digits ...",
        "Exporting ...",
        "Verifying the exported files in a fresh process ...",
        "Drawing the report ...",
    ], "and not one line of TensorFlow's log"


def test_a_refusal_by_the_gate_exits_with_5_and_still_reports_and_with_log_format_json_every_line_is_an_object(
    tmp_path: Path,
) -> None:
    done = run_trainer(
        "train", "--artifacts", tmp_path, *REFUSED, "--evaluate-every", 2, "--log-format", "json", patches=QUICK_PUBLISH
    )
    assert done.returncode == ExitCode.GATE
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [2, 4]
    assert (lines[-1]["kind"], lines[-1]["exit_code"]) == ("error", ExitCode.GATE)
    refusal = "below the gate's minimum of 97.50 %"
    assert refusal in lines[-1]["message"]
    notes = [json.loads(line) for line in done.stdout.splitlines()]
    result = read_result(tmp_path / "runs" / "r")
    assert notes[0]["test_accuracy"] == result["evaluation"]["accuracy"]
    assert refusal not in done.stdout, "a refusal is printed once"
    assert result["exit_code"] == ExitCode.GATE
    assert "Not published" in (tmp_path / "runs" / "r" / "report.html").read_text()
    assert not live_versions(tmp_path / "models" / MODEL_NAME)


def test_tensorboard_has_two_runs_with_the_same_tags_and_the_test_results(finished: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = finished / "runs" / "r"
    train, validation = (EventAccumulator(str(folder / name), size_guidance={"tensors": 0}) for name in TENSORBOARD)
    train.Reload()
    validation.Reload()
    tags, other_tags = set(train.Tags()["tensors"]), set(validation.Tags()["tensors"])
    assert {"loss", "accuracy"} <= tags & other_tags
    assert {"learning_rate", "speed/images_per_second", "speed/input_wait_fraction"} <= tags
    assert {"config", "environment", "train/augmented_batch"} <= tags
    assert train.Tags()["graph"]
    assert {"test/accuracy", "test/loss", "test/worst_mistakes", "test/confusion"} <= other_tags
    assert {f"test/digit_{digit}/pr_curves" for digit in range(10)} <= other_tags
    assert train.SummaryMetadata("loss").summary_description
    assert "_hparams_/session_start_info" in other_tags
    assert (folder / "validation" / "projector_config.pbtxt").is_file()
    assert len((folder / "validation" / "embeddings.tsv").read_text().splitlines()) == 360


def test_a_finished_run_is_not_overwritten(finished: Path) -> None:
    done = run_trainer("train", "--artifacts", finished, *SHORT, "--seed", 1)
    assert done.returncode == ExitCode.USAGE
    assert "run 'r' cannot be resumed: seed was 0 and is 1" in done.stderr
    assert read_result(finished / "runs" / "r")["exit_code"] == 0


@pytest.mark.parametrize("without", [[], ["checkpoints"]], ids=["as it was", "without its checkpoints"])
def test_a_finished_run_started_again_changes_nothing_and_exits_with_0(
    finished: Path, tmp_path: Path, without: list[str]
) -> None:
    """An expired Job is made again by the next `kubectl apply`, with the same run name."""
    run = tmp_path / "runs" / "r"
    shutil.copytree(finished / "runs" / "r", run, ignore=shutil.ignore_patterns(*without))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock"}
    done = run_trainer("train", "--artifacts", tmp_path, *SHORT)
    assert done.returncode == ExitCode.OK, done.stderr
    assert "run 'r' is finished" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != ".lock"} == before
    done = run_trainer("train", "--artifacts", tmp_path, *SHORT, "--seed", 1)
    assert done.returncode == ExitCode.USAGE
    assert "seed was 0 and is 1" in done.stderr


def test_a_trained_run_without_checkpoints_is_not_trained_again_to_be_published(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "r"
    shutil.copytree(finished / "runs" / "r", run, ignore=shutil.ignore_patterns("checkpoints"))
    result = read_result(run)
    (run / "result.json").write_text(json.dumps({name: result[name] for name in result if name != "published"}))
    done = run_trainer("train", "--artifacts", tmp_path, *SHORT)
    assert done.returncode == ExitCode.USAGE
    assert command_line("publish", run) in done.stderr


def test_a_finished_run_can_be_published_again_and_rolled_back(finished: Path, tmp_path: Path) -> None:
    artifacts = Path(shutil.copytree(finished, tmp_path / "artifacts"))
    run, models = artifacts / "runs" / "r", artifacts / "models" / MODEL_NAME
    done = run_trainer("publish", run, "--min-accuracy", 0.9999, patches=QUICK_PUBLISH)
    assert done.returncode == ExitCode.GATE
    assert "below the gate's minimum of 99.99 %" in done.stderr
    assert json.loads((run / "publish.json").read_text())["exit_code"] == ExitCode.GATE
    assert "Not published" in (run / "report.html").read_text()
    assert read_result(run)["published"], "what training did stays on record"
    assert len(live_versions(models)) == 1

    done = run_trainer("publish", run, patches=QUICK_PUBLISH)
    assert done.returncode == 0, done.stderr
    assert "cnn, " in json.loads((run / "publish.json").read_text())["facts"]["network"]
    first, second = live_versions(models)
    done = run_trainer("rollback", "--artifacts", artifacts)
    assert f"retired version {second}; now served: {first}" in done.stdout
    assert live_versions(models) == [first]
    done = run_trainer("rollback", "--artifacts", artifacts)
    assert done.returncode == ExitCode.USAGE
    assert "is the only version" in done.stderr


def test_a_run_whose_output_nobody_reads_publishes_and_exits_with_0(tmp_path: Path) -> None:
    """Under `train 2>&1 | true`, a warning after the publishing ended the command with 74, which a Job retries."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    arguments = ["train", "--artifacts", tmp_path, "--model", "mlp", *REFUSED, "--min-accuracy", 0]
    process = start_forked([*map(str, arguments)], pipe, pipe, patches=QUICK_PUBLISH)
    assert select.select([reader], [], [], 120)[0], "it has printed something"
    os.close(reader)
    process.join(300)
    assert process.exitcode == ExitCode.OK
    assert len(live_versions(tmp_path / "models" / MODEL_NAME)) == 1
    assert read_result(tmp_path / "runs" / "r")["exit_code"] == ExitCode.OK


def full_disk(*_: object) -> None:
    """Take the place of what draws the figures."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_figures_that_cannot_be_written_do_not_stop_the_publication(finished: Path, tmp_path: Path) -> None:
    artifacts = Path(shutil.copytree(finished / "runs" / "r", tmp_path / "runs" / "r")).parents[1]
    out, err = tmp_path / "out", tmp_path / "err"
    patches = {**QUICK_PUBLISH, "trainer.evaluation.figures.save_figures": full_disk}
    process = start_forked(["publish", str(artifacts / "runs" / "r")], out, err, patches=patches)
    process.join(120)
    assert process.exitcode == ExitCode.OK, err.read_text()
    assert "warning: cannot write the report: [Errno 28] No space left on device" in err.read_text()
    assert len(live_versions(artifacts / "models" / MODEL_NAME)) == 1


def test_what_is_shown_in_tensorboard_is_shown_once_even_if_a_figure_cannot_be_written(monkeypatch) -> None:
    from trainer.steps import publish

    def publish_it(*_: object, verify: Callable[[], None], **__: object) -> str:
        verify()
        return "Published."

    def verify(meanwhile: Callable[[], None]) -> None:
        meanwhile()

    def report(*_: object, draw: Callable[[], None], **__: object) -> None:
        with pytest.raises(OSError, match="No space left"):
            draw()

    for name, value in (("_publish", publish_it), ("report", report), ("_draw_figures", full_disk)):
        monkeypatch.setattr(publish, name, value)
    shown: list[str] = []
    publish.publish_and_report(None, RunResult(), SILENT, verify=verify, show=lambda: shown.append("test results"))
    assert shown == ["test results"]


def test_an_unwritable_folder_exits_with_2_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run_trainer("train", "--artifacts", tmp_path / "file" / "artifacts", "--run", "r")
    assert done.returncode == ExitCode.USAGE
    assert "cannot write to" in done.stderr
    assert "Not a directory" in done.stderr
    (tmp_path / "models").write_text("in the way")
    done = run_trainer("train", "--artifacts", tmp_path, "--run", "r")
    assert done.returncode == ExitCode.USAGE
    assert f"cannot write to {tmp_path / 'models'}" in done.stderr


def test_a_served_version_of_other_data_refuses_the_run_before_it_trains(finished: Path, tmp_path: Path) -> None:
    served = shutil.copytree(finished / "models", tmp_path / "models") / MODEL_NAME
    (metadata_file,) = served.glob("*/assets.extra/digits.json")
    metadata = json.loads(metadata_file.read_text()) | {"test_fingerprint": "of other digits"}
    metadata_file.write_text(json.dumps(metadata))
    refused = run_trainer("train", "--artifacts", tmp_path, *REFUSED)
    assert refused.returncode == ExitCode.GATE
    assert "was evaluated on another test split" in refused.stderr
    assert "add --allow-other-data" in refused.stderr
    assert not list((tmp_path / "runs" / "r" / "checkpoints").glob("*"))
    allowed = run_trainer("train", "--artifacts", tmp_path, *REFUSED, "--allow-other-data", patches=UNREPORTED)
    assert "below the gate's minimum" in allowed.stderr


def test_divergence_exits_with_4_publishes_nothing_and_leaves_nothing_to_the_next_attempt(tmp_path: Path) -> None:
    """It ends before its first checkpoint, so no settings of it stand in the way of others."""
    mlp = ("--model", "mlp", "--warmup-fraction", 0)
    diverged = run_trainer("train", "--artifacts", tmp_path, "--run", "r", *mlp, "--learning-rate", 1e30)
    assert diverged.returncode == ExitCode.DIVERGED
    assert read_result(tmp_path / "runs" / "r")["exit_code"] == ExitCode.DIVERGED
    assert not live_versions(tmp_path / "models" / MODEL_NAME)
    assert (tmp_path / "runs" / "r" / "metrics.jsonl").is_file()
    done = run_trainer("publish", tmp_path / "runs" / "r")
    assert done.returncode == ExitCode.USAGE
    assert "was not trained to its end" in done.stderr
    refused = run_trainer("train", "--artifacts", tmp_path, *mlp, *REFUSED, patches=UNREPORTED)
    assert refused.returncode == ExitCode.GATE, refused.stderr
    rows = [json.loads(line) for line in (tmp_path / "runs" / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 4]


def test_a_folder_with_other_files_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "runs" / "thesis").mkdir(parents=True)
    (tmp_path / "runs" / "thesis" / "chapter1.txt").write_text("precious")
    done = run_trainer("train", "--artifacts", tmp_path, "--run", "thesis")
    assert done.returncode == ExitCode.USAGE
    assert "holds files that do not belong to a run" in done.stderr
    assert (tmp_path / "runs" / "thesis" / "chapter1.txt").read_text() == "precious"


def test_a_disk_that_fills_up_exits_with_74_and_publishes_nothing(tmp_path: Path, capsys) -> None:
    # A limit on the size of files makes writes fail in mid-run, as a full disk does, and needs no root.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))
    try:
        code = main(["train", "--artifacts", str(tmp_path), *map(str, SHORT)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err
    assert code == ExitCode.IO, said[-2000:]
    assert "error:" in said
    assert read_result(tmp_path / "runs" / "r")["exit_code"] == ExitCode.IO
    assert not live_versions(tmp_path / "models" / MODEL_NAME)


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A filesystem of 20 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small filesystem needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_too_little_disk_space_exits_with_74_before_any_work(tiny_disk: Path) -> None:
    done = run_trainer("train", "--artifacts", tiny_disk, *SHORT)
    assert done.returncode == ExitCode.IO
    assert "MiB of disk space left; a run needs 100 MiB" in done.stderr


def test_a_signal_while_it_publishes_exits_with_75_and_leaves_no_version(finished: Path, tmp_path: Path) -> None:
    artifacts = Path(shutil.copytree(finished / "runs" / "r", tmp_path / "runs" / "r")).parents[1]
    out, err, models = tmp_path / "out", tmp_path / "err", artifacts / "models" / MODEL_NAME
    process = start_forked(["publish", str(artifacts / "runs" / "r")], out, err)
    staged = ".staging-*/assets.extra/digits.json"
    wait_until(lambda: list(models.glob(staged)), timeout_seconds=120, pause_seconds=0.01)
    os.kill(process.pid, signal.SIGTERM)
    process.join(120)
    assert process.exitcode == ExitCode.STOPPED, err.read_text()
    assert "stopped by SIGTERM" in err.read_text()
    assert {child.name for child in models.iterdir()} == {".lock"}


@pytest.mark.slow
def test_mnist_reaches_99_percent_with_the_fast_preset(mnist_files: Path, tmp_path: Path) -> None:
    flags = ("--preset", "fast", "--dataset", "idx", "--data-dir", mnist_files, "--run", "r")
    done = run_trainer("train", "--artifacts", tmp_path, *flags)
    assert done.returncode == ExitCode.OK, done.stderr
    assert read_result(tmp_path / "runs" / "r")["evaluation"]["accuracy"] >= 0.99
