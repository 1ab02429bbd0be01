"""Each training benchmark runs, with settings too small to measure anything, and writes its figures."""

import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.time_to_accuracy import compare
from trainer.data.idx import FILES
from trainer.data.optdigits import read_optdigits

REPOSITORY = Path(__file__).parents[2]
CASES_IN_TURNS = {"strategies": 3, "input_path": 6, "batch_norm": 3, "checkpoint_cost": 3}


def _run(benchmark: str, *flags: object) -> tuple[str, dict]:
    """What it prints, and its JSON."""
    file = Path(flags[-1])
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *map(str, flags)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, json.loads(file.read_text())


@pytest.fixture(scope="module")
def idx_folder(tmp_path_factory) -> Path:
    """The embedded digits as IDX files: real ones, and few."""
    folder = tmp_path_factory.mktemp("idx")
    for names, split in zip(FILES.values(), read_optdigits(), strict=True):
        for name, values in zip(names, (split.images, split.labels), strict=True):
            header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            (folder / name).write_bytes(header + values.astype(np.uint8).tobytes())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", CASES_IN_TURNS)
def test_cases_in_turns_are_measured_in_every_round(benchmark, tmp_path):
    printed, figures = _run(benchmark, "--rounds", 2, "--steps", 2, "--json", tmp_path / "figures.json")
    assert len(figures["cases"]) == CASES_IN_TURNS[benchmark]
    for name, rates in figures["rounds"].items():
        assert name in printed
        assert len(rates) == 2
        assert all(0 < rate < math.inf for rate in rates)
        assert min(rates) <= figures["cases"][name]["images_per_second"] <= max(rates)
    assert "random images" in printed


def test_accuracy_scores_every_seed_and_drops_none(idx_folder, tmp_path):
    flags = ("--preset", "quickstart", "--epochs", 0.2, "--seeds", 2, "--dataset", "idx", "--data-dir", idx_folder)
    _, figures = _run("accuracy", *flags, "--json", tmp_path / "figures.json")
    assert [run["seed"] for run in figures["runs"]] == [0, 1]
    assert figures["summary"]["mean_test_accuracy"] == pytest.approx(
        sum(run["test_accuracy"] for run in figures["runs"]) / 2
    )


def test_time_to_accuracy_scores_the_baseline_after_each_epoch_on_a_growing_clock(idx_folder, tmp_path):
    flags = ("--epochs", 2, "--target", 0.1, "--data-dir", idx_folder)
    printed, figures = _run("time_to_accuracy", *flags, "--json", tmp_path / "figures.json")
    ((first, second),) = figures["keras_recipe"]
    assert 0 < first[0] < second[0]
    assert [len(points) for points in figures["presets"].values()] == [1, 1]
    for preset in ("sprint", "fast"):
        assert f"{preset}: {figures['verdicts'][preset]['sentence']}" in printed


def test_a_baseline_that_never_reaches_the_target_gives_a_lower_bound():
    verdict = compare([[(10.0, 0.97), (20.0, 0.98)]], [(4.0, 0.991)], target=0.99)
    assert verdict["times_sooner"] == 5
    assert verdict["is_lower_bound"]
    assert "more than 5.0 times sooner" in verdict["sentence"]


def test_a_baseline_that_reaches_the_target_counts_from_its_first_such_epoch():
    verdict = compare([[(10.0, 0.97), (20.0, 0.992), (30.0, 0.98)]], [(4.0, 0.991)], target=0.99)
    assert verdict["times_sooner"] == 5
    assert not verdict["is_lower_bound"]


def test_a_preset_that_misses_the_target_is_never_called_sooner():
    verdict = compare([[(10.0, 0.97)]], [(4.0, 0.98)], target=0.99)
    assert verdict["times_sooner"] is None
    assert "did not reach" in verdict["sentence"]
