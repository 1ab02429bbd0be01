"""Learning from corrected pictures: the served version is trained further, scored before and after, and published."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.conftest import read_result
from tests.trainer.runner import UNREPORTED
from trainer.cli import main
from trainer.data.pen import draw_style
from trainer.data.skeletons import STYLES
from trainer.errors import ExitCode
from trainer.precision import machine_precision
from trainer.publishing.publish import publish
from trainer.publishing.versions import live_versions

OPEN_GATE = ("--tolerance", 1, "--significance", 0)
"""So that some training in a test is enough."""

SEVEN = next(style for style in STYLES[7] if style.name == "waved and barred")


def keep_sevens(folder: Path, count: int) -> Path:
    """Barred sevens as a user draws them, in the form that the page keeps."""
    (folder / "7").mkdir(parents=True)
    for number, image in enumerate(draw_style(SEVEN, count, np.random.default_rng(3))):
        Image.fromarray(255 - np.pad(image, 10)).save(folder / "7" / f"{number}.png")
    (folder / ".answers").mkdir()
    (folder / ".answers" / "0.json").write_text("{}")
    return folder


def learn(folder: Path, artifacts: Path, *flags: object) -> int:
    """Return the exit status. In this process, which traces the preparation of pictures once for all tests."""
    return main([*map(str, ("learn", folder, "--artifacts", artifacts, *flags))])


@pytest.fixture(autouse=True)
def _without_verification_and_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have tests of their own."""
    monkeypatch.setitem(publish.__kwdefaults__, "verify", lambda *_: {})
    for name, value in UNREPORTED.items():
        monkeypatch.setattr(name, value)


@pytest.fixture
def artifacts(finished: Path, tmp_path: Path) -> Path:
    """A copy of the artefacts of a run that published, to be changed."""
    return shutil.copytree(finished, tmp_path / "artifacts")


@pytest.mark.slow
def test_the_served_version_is_trained_further_and_the_next_version_published(
    artifacts: Path, tmp_path: Path, capsys
) -> None:
    folder = keep_sevens(tmp_path / "kept", 30)
    before = live_versions(artifacts / "models" / "digits")
    assert learn(folder, artifacts, "--run", "learned", "--epochs", 3, *OPEN_GATE) == ExitCode.OK
    done = capsys.readouterr()
    after = live_versions(artifacts / "models" / "digits")
    assert (len(after), after[:1]) == (2, before)
    result = read_result(artifacts / "runs" / "learned")
    assert result["facts"]["initial weights"].endswith(f"{before[0]}, with a new optimizer")
    scores = {line.split("  ")[0]: line for line in done.out.splitlines() if " before, " in line}
    assert set(scores) == {"test digits", "held-out corrections"}
    assert "(360 digits)" in scores["test digits"]
    assert f"({result['extra']['examples']} digits)" in scores["held-out corrections"]
    assert "all corrections are of the digit 7" in done.err

    # Relabelled: a seven that the user calls a one.
    (folder / "1").mkdir()
    shutil.move(folder / "7" / "3.png", folder / "1" / "3.png")
    assert learn(folder, artifacts, "--run", "again", "--epochs", 1, *OPEN_GATE) == ExitCode.OK
    assert f"{after[1]}, with a new optimizer" in read_result(artifacts / "runs" / "again")["facts"]["initial weights"]


def test_without_a_new_correction_nothing_is_trained(artifacts: Path, tmp_path: Path, capsys) -> None:
    folder = keep_sevens(tmp_path / "kept", 12)
    flags = ("--epochs", 0.2, "--min-accuracy", 0.3, *OPEN_GATE)
    assert learn(folder, artifacts, *flags) == ExitCode.OK
    versions, runs = live_versions(artifacts / "models" / "digits"), sorted((artifacts / "runs").iterdir())
    shutil.move(folder / "7" / "3.png", folder / "7" / "renamed.png")
    assert learn(folder, artifacts, *flags) == ExitCode.OK
    assert f"Version {versions[-1]} has learned from all corrections in {folder}" in capsys.readouterr().out
    assert live_versions(artifacts / "models" / "digits") == versions
    assert sorted((artifacts / "runs").iterdir()) == runs


def test_it_computes_in_the_precision_of_this_machine_and_not_of_the_one_that_trained(
    artifacts: Path, tmp_path: Path
) -> None:
    """A config from a machine with a GPU names bfloat16; a CPU without it takes more than ten times as long with it."""
    here = machine_precision()
    (file,) = (artifacts / "runs").glob("*/config.json")
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"precision": "float32" if here != "float32" else "mixed_bfloat16"}))
    folder = keep_sevens(tmp_path / "kept", 12)
    assert learn(folder, artifacts, "--run", "x", "--epochs", 0.2, "--min-accuracy", 1) == ExitCode.GATE
    assert json.loads((artifacts / "runs" / "x" / "config.json").read_text())["precision"] == here


def test_a_model_that_the_gate_refuses_is_not_published_and_its_scores_and_a_warning_of_few_corrections_are_printed(
    artifacts: Path, tmp_path: Path, capsys
) -> None:
    folder = keep_sevens(tmp_path / "kept", 3)
    assert learn(folder, artifacts, "--epochs", 0.2, "--min-accuracy", 1) == ExitCode.GATE
    said = capsys.readouterr()
    assert "test digits" in said.out
    assert "warning: there are only 3 corrections" in said.err
    assert len(live_versions(artifacts / "models" / "digits")) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: shutil.rmtree(folder / "7"), "no pictures"),
        (lambda folder: (folder / "7" / "5.png").write_text("no picture"), "5.png: cannot be decoded"),
        (
            lambda folder: (folder / "1").mkdir() or shutil.copy(folder / "7" / "5.png", folder / "1" / "x.png"),
            "the same image is in",
        ),
    ],
    ids=["no folder", "no pictures", "unreadable", "two labels"],
)
def test_corrections_that_cannot_be_used_are_named_before_any_training(
    artifacts: Path, tmp_path: Path, capsys, spoil, message: str
) -> None:
    folder = keep_sevens(tmp_path / "kept", 12)
    spoil(folder)
    assert learn(folder, artifacts, "--run", "x") == ExitCode.DATA
    assert message in capsys.readouterr().err
    assert not (artifacts / "runs" / "x").exists()


def test_without_a_version_or_its_settings_the_error_says_what_to_do(artifacts: Path, tmp_path: Path, capsys) -> None:
    folder = keep_sevens(tmp_path / "kept", 12)
    shutil.rmtree(artifacts / "runs")
    assert learn(folder, artifacts) == ExitCode.USAGE
    assert "give them with --config FILE" in capsys.readouterr().err
    assert learn(folder, tmp_path / "elsewhere") == ExitCode.USAGE
    assert "no version is published" in capsys.readouterr().err


def test_damaged_metadata_of_the_served_version_is_named_with_what_helps(
    artifacts: Path, tmp_path: Path, capsys
) -> None:
    folder = keep_sevens(tmp_path / "kept", 12)
    (file,) = (artifacts / "models").rglob("digits.json")
    file.write_text("{")
    assert learn(folder, artifacts) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert f"{file} is damaged" in error
    assert "rollback" in error
