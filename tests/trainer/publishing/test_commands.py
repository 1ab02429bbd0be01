"""`publish`, `evaluate`, `rollback` and the flags of the gate, as a user calls them, on one short run."""

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.conftest import read_result, write_idx
from trainer.cli import main
from trainer.config import TrainConfig
from trainer.data.split import DataError, Split
from trainer.errors import ConfigError, ExitCode
from trainer.publishing.versions import live_versions
from trainer.steps.evaluate import refuse_changed_data

pytestmark = pytest.mark.usefixtures("quick_publish")

QUICK = ("--model", "mlp", "--width", "0.25", "--epochs", "3", "--pen-weight", "0", "--run", "r", "--dataset", "idx")


def write_data(folder: Path, train: Split, test: Split) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", train), ("t10k", test)):
        write_idx(folder / f"{name}-images-idx3-ubyte", split.images)
        write_idx(folder / f"{name}-labels-idx1-ubyte", split.labels)


@pytest.fixture(scope="module")
def refused(tmp_path_factory, splits) -> Path:
    """The artefacts of a run that the gate refused; not to be changed."""
    artifacts = tmp_path_factory.mktemp("refused")
    train = Split(
        np.concatenate([splits.train.images, splits.validation.images]),
        np.concatenate([splits.train.labels, splits.validation.labels]),
    )
    write_data(artifacts / "data", train, splits.test)
    assert main(["train", *QUICK, "--artifacts", str(artifacts), "--min-accuracy", "1"]) == ExitCode.GATE
    return artifacts


@pytest.fixture
def artifacts(refused: Path, tmp_path: Path) -> Path:
    """A copy of them, to be changed."""
    return Path(shutil.copytree(refused, tmp_path / "artifacts"))


def test_a_refusal_is_recorded_with_what_the_gate_required(refused: Path) -> None:
    result = read_result(refused / "runs" / "r")
    assert result["gate"]["min_accuracy"] == result["gate"]["limit"] == 1.0
    assert result["gate"]["accuracy"] == result["evaluation"]["accuracy"]
    assert result["outcome"].startswith("Not published: test accuracy is")


def test_evaluate_keeps_the_outcome_of_a_refused_run(artifacts: Path) -> None:
    """It painted the refused run green, and its card said that the test split had been scored once."""
    run = artifacts / "runs" / "r"
    assert main(["evaluate", str(run)]) == ExitCode.OK
    report, card = (run / "report.html").read_text(), (run / "model_card.md").read_text()
    assert '<p class="status bad"><strong>Not published</strong>Test accuracy is' in report
    assert "scored again from the saved weights on" in card
    assert "scored once" not in card
    evaluated = json.loads((run / "evaluate.json").read_text())
    assert evaluated["outcome"].startswith("Not published")
    assert evaluated["evaluation"]["accuracy"] == read_result(run)["evaluation"]["accuracy"]

    assert main(["publish", str(run), "--min-accuracy", "0"]) == ExitCode.OK
    assert main(["evaluate", str(run)]) == ExitCode.OK
    assert '<p class="status ok"><strong>Published</strong>As version' in (run / "report.html").read_text()


def test_publish_refuses_data_that_the_run_was_not_trained_with(artifacts: Path, splits, capsys) -> None:
    """After the data had been parted anew, a run with 93.80 % was published at 100.00 %, on its training examples."""
    write_data(artifacts / "data", splits.test, splits.train)
    for command in ("publish", "evaluate"):
        assert main([command, str(artifacts / "runs" / "r")]) == ExitCode.DATA
        assert "the train, validation, test data is not what this run was trained with" in capsys.readouterr().err
    assert live_versions(artifacts / "models" / "digits") == []


def test_extra_pictures_that_changed_are_what_the_refusal_names(tmp_path: Path) -> None:
    """It advised to change --data-dir, which was right."""
    config = TrainConfig(artifacts=tmp_path, run="r", extra_data=tmp_path / "kept")
    trained = {"train": "1", "validation": "2", "test": "3", "extra": "4"}
    with pytest.raises(DataError, match=f"the train, extra data is not .*the pictures in {tmp_path / 'kept'} were"):
        refuse_changed_data(config, trained, {**trained, "train": "5", "extra": "6"})
    with pytest.raises(DataError, match=r"the train, test data is not .*--data-dir in its config\.json"):
        refuse_changed_data(config, trained, {**trained, "train": "5", "test": "6"})


def test_weights_that_do_not_fit_the_config_are_named(artifacts: Path, capsys) -> None:
    run = artifacts / "runs" / "r"
    (run / "config.json").write_text((run / "config.json").read_text().replace('"width": 0.25', '"width": 0.75'))
    assert main(["publish", str(run)]) == ExitCode.USAGE
    assert "holds the weights of another network than --model mlp --width 0.75" in capsys.readouterr().err


def test_publish_through_a_linked_runs_folder_publishes_beside_the_link(artifacts: Path, tmp_path: Path) -> None:
    """It published beside the link's target, where no server looks, with exit 0."""
    shutil.move(artifacts / "runs", tmp_path / "elsewhere" / "runs")
    (artifacts / "runs").symlink_to(tmp_path / "elsewhere" / "runs")
    flags = ("--min-accuracy", "0")
    assert main(["publish", str(artifacts / "runs" / "r"), *flags]) == ExitCode.OK
    assert len(live_versions(artifacts / "models" / "digits")) == 1
    assert not (tmp_path / "elsewhere" / "models").exists()

    other = tmp_path / "other"
    shutil.copytree(artifacts / "data", other / "data")
    assert main(["publish", str(artifacts / "runs" / "r"), "--artifacts", str(other), *flags]) == ExitCode.OK
    assert len(live_versions(other / "models" / "digits")) == 1


def test_model_name_and_models_dir_say_where_versions_go(artifacts: Path, tmp_path: Path, capsys) -> None:
    where = ("--models-dir", str(tmp_path / "shelf"), "--model-name", "sevens")
    run = str(artifacts / "runs" / "r")
    assert main(["publish", run, "--min-accuracy", "0", *where]) == ExitCode.OK
    [version] = live_versions(tmp_path / "shelf" / "sevens")
    assert not (artifacts / "models" / "sevens").exists()
    records = (
        tmp_path / "shelf" / "sevens" / str(version) / "assets.extra" / "tf_serving_warmup_requests"
    ).read_bytes()
    assert b"sevens" in records
    assert b"digits" not in records.replace(b"digit_", b"")
    assert main(["rollback", *where]) == ExitCode.USAGE
    assert f"{version} is the only version" in capsys.readouterr().err
    assert main(["rollback", str(version), *where, "--allow-none"]) == ExitCode.OK
    assert f"retired version {version}; now served: nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--artifacts", "gs://bucket/a"],
        ["train", "--data-dir", "s3://bucket/data"],
        ["train", "--models-dir", "gs://bucket/models"],
        ["train", "--config", "https://host/config.json"],
        ["tune", "--artifacts", "gs://bucket/a"],
        ["publish", "gs://bucket/a/runs/r"],
        ["publish", "run", "--artifacts", "gs://bucket"],
        ["evaluate", "gs://bucket/a/runs/r"],
        ["rollback", "--artifacts", "gs://bucket/a"],
        ["doctor", "--data-dir", "hdfs://host/data"],
        ["data", "prepare", "--data-dir", "gs://bucket/data"],
        ["data", "samples", "gs://bucket/samples"],
    ],
)
def test_a_url_is_refused_in_every_path_flag(arguments, tmp_path, monkeypatch, capsys) -> None:
    """`gs://bucket` became a local folder named `gs:`, and the run said that it had published."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refusal:
        main(arguments)
    assert refusal.value.code == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "a URL is not a path; mount the bucket as a folder" in said
    assert "://" in said
    assert not list(tmp_path.iterdir())


def test_a_url_in_a_config_file_is_refused_too(tmp_path: Path, capsys) -> None:
    (tmp_path / "config.json").write_text('{"artifacts": "gs://bucket/a"}')
    assert main(["train", "--config", str(tmp_path / "config.json")]) == ExitCode.USAGE
    assert "a URL is not a path" in capsys.readouterr().err
    assert not Path("gs:").exists()


def test_out_of_memory_has_a_code_and_words_of_its_own(tmp_path: Path, capsys) -> None:
    """It was exit 70, which a Kubernetes Job retries."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**33, limits[1]))
    try:
        code = main(["train", "--artifacts", str(tmp_path), "--run", "r", "--model", "mlp", "--width", "1e5"])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert code == ExitCode.MEMORY
    said = capsys.readouterr().err
    assert "out of memory: OOM when allocating tensor" in said
    assert "Lower --global-batch-size or --width" in said
    assert "Traceback" not in said
    assert read_result(tmp_path / "runs" / "r")["status"] == "memory"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"keep_versions": 1}, "keep_versions is 1; expected at least 2"),
        ({"keep_versions": -2}, "keep_versions is -2"),
        ({"model_name": "../digits"}, "model_name is '../digits'; expected a plain folder name"),
        ({"model_name": ""}, "model_name is empty"),
        ({"significance": 1.0}, "significance is 1.0; expected 0 <= value < 1"),
    ],
)
def test_wrong_settings_of_publishing_are_refused(settings, complaint) -> None:
    with pytest.raises(ConfigError, match=complaint):
        TrainConfig(**settings)
