"""Learning from corrected pictures: the served version is trained further, scored before and after, and published."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.conftest import read_result, run_trainer
from trainer.data.pen import draw_style
from trainer.data.skeletons import STYLES
from trainer.errors import ExitCode
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


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artefacts with one run, `first`, whose model is published."""
    root = tmp_path_factory.mktemp("artifacts")
    done = run_trainer(
        "train", "--artifacts", root, "--run", "first", "--width", 0.5, "--epochs", 4, "--min-accuracy", 0.5
    )
    assert done.returncode == ExitCode.OK, done.stderr
    return root


@pytest.fixture
def artifacts(served: Path, tmp_path: Path) -> Path:
    return shutil.copytree(served, tmp_path / "artifacts")


@pytest.mark.slow
def test_the_served_version_is_trained_further_and_the_next_version_published(artifacts: Path, tmp_path: Path) -> None:
    folder = keep_sevens(tmp_path / "kept", 30)
    before = live_versions(artifacts / "models" / "digits")
    done = run_trainer("learn", folder, "--artifacts", artifacts, "--run", "learned", "--epochs", 3, *OPEN_GATE)
    assert done.returncode == ExitCode.OK, done.stderr
    after = live_versions(artifacts / "models" / "digits")
    assert (len(after), after[:1]) == (2, before)
    result = read_result(artifacts / "runs" / "learned")
    assert result["facts"]["initial weights"].endswith(f"{before[0]}, with a new optimizer")
    scores = {line.split("  ")[0]: line for line in done.stdout.splitlines() if " before, " in line}
    assert set(scores) == {"test digits", "held-out corrections"}
    assert "(360 digits)" in scores["test digits"]
    assert f"({result['extra']['examples']} digits)" in scores["held-out corrections"]
    assert "all corrections are of the digit 7" in done.stderr

    # Relabelled: a seven that the user calls a one.
    (folder / "1").mkdir()
    shutil.move(folder / "7" / "3.png", folder / "1" / "3.png")
    again = run_trainer("learn", folder, "--artifacts", artifacts, "--run", "again", "--epochs", 1, *OPEN_GATE)
    assert again.returncode == ExitCode.OK, again.stderr
    assert f"{after[1]}, with a new optimizer" in read_result(artifacts / "runs" / "again")["facts"]["initial weights"]


def test_without_a_new_correction_nothing_is_trained(artifacts: Path, tmp_path: Path) -> None:
    folder = keep_sevens(tmp_path / "kept", 12)
    flags = ("--artifacts", artifacts, "--epochs", 0.2, "--min-accuracy", 0.5, *OPEN_GATE)
    assert run_trainer("learn", folder, *flags).returncode == ExitCode.OK
    versions, runs = live_versions(artifacts / "models" / "digits"), sorted((artifacts / "runs").iterdir())
    shutil.move(folder / "7" / "3.png", folder / "7" / "renamed.png")
    done = run_trainer("learn", folder, *flags)
    assert done.returncode == ExitCode.OK, done.stderr
    assert f"Version {versions[-1]} has learned from all corrections in {folder}" in done.stdout
    assert live_versions(artifacts / "models" / "digits") == versions
    assert sorted((artifacts / "runs").iterdir()) == runs


def test_a_model_that_the_gate_refuses_is_not_published_and_its_scores_are_printed(
    artifacts: Path, tmp_path: Path
) -> None:
    folder = keep_sevens(tmp_path / "kept", 12)
    done = run_trainer("learn", folder, "--artifacts", artifacts, "--epochs", 0.2, "--min-accuracy", 1)
    assert done.returncode == ExitCode.GATE
    assert "test digits" in done.stdout
    assert len(live_versions(artifacts / "models" / "digits")) == 1


def test_few_corrections_get_a_warning(artifacts: Path, tmp_path: Path) -> None:
    folder = keep_sevens(tmp_path / "kept", 3)
    done = run_trainer("learn", folder, "--artifacts", artifacts, "--epochs", 0.2, "--no-publish")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "warning: there are only 3 corrections" in done.stderr


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
    artifacts: Path, tmp_path: Path, spoil, message: str
) -> None:
    folder = keep_sevens(tmp_path / "kept", 12)
    spoil(folder)
    done = run_trainer("learn", folder, "--artifacts", artifacts, "--run", "x")
    assert done.returncode == ExitCode.DATA
    assert message in done.stderr
    assert not (artifacts / "runs" / "x").exists()


def test_without_a_version_or_its_settings_the_error_says_what_to_do(artifacts: Path, tmp_path: Path) -> None:
    folder = keep_sevens(tmp_path / "kept", 12)
    shutil.rmtree(artifacts / "runs")
    done = run_trainer("learn", folder, "--artifacts", artifacts)
    assert done.returncode == ExitCode.USAGE
    assert "give them with --config FILE" in done.stderr
    done = run_trainer("learn", folder, "--artifacts", tmp_path / "elsewhere")
    assert done.returncode == ExitCode.USAGE
    assert "no version is published" in done.stderr
