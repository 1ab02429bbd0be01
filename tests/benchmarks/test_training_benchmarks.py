"""Each training benchmark runs, with settings too small to measure anything, and writes its figures."""

import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.roofline import training_flop
from benchmarks.scaling import Cluster, step
from benchmarks.time_to_accuracy import compare
from testbed.report import print_rates
from trainer.data.idx import FILES
from trainer.data.optdigits import read_optdigits
from trainer.training.model import build_model

REPOSITORY = Path(__file__).parents[2]
CASES_IN_TURNS = {"strategies": 3, "input_path": 6, "batch_norm": 3, "checkpoint_cost": 3}
SMALL = {"batch_norm": ("--preset", "quickstart"), "checkpoint_cost": ("--preset", "quickstart")}


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


def test_a_machine_whose_speed_drifts_does_not_change_the_ratio(capsys):
    figures = print_rates({"a": [100.0, 200.0, 400.0], "b": [90.0, 180.0, 360.0]}, reference=lambda _: "a")
    assert figures == {
        "a": {"images_per_second": 200.0, "ratio": 1.0},
        "b": {"images_per_second": 180.0, "ratio": pytest.approx(0.9)},
    }
    # A slow moment of one case in the middle round: the medians alone would say 0.5.
    drifting = {"a": [100.0, 200.0, 300.0], "b": [100.0, 50.0, 300.0]}
    assert print_rates(drifting, reference=lambda _: "a")["b"]["ratio"] == 1.0
    assert "images/s" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", CASES_IN_TURNS)
def test_cases_in_turns_are_measured_in_every_round(benchmark, tmp_path):
    printed, figures = _run(
        benchmark, "--rounds", 2, "--steps", 2, *SMALL.get(benchmark, ()), "--json", tmp_path / "figures.json"
    )
    assert len(figures["cases"]) == CASES_IN_TURNS[benchmark]
    for name, rates in figures["rounds"].items():
        assert name in printed
        assert len(rates) == 2
        assert all(0 < rate < math.inf for rate in rates)
        assert min(rates) <= figures["cases"][name]["images_per_second"] <= max(rates)
    assert "random images" in printed


@pytest.mark.slow
def test_time_to_accuracy_scores_the_baseline_after_each_epoch_on_a_growing_clock(idx_folder, tmp_path):
    flags = ("--epochs", 2, "--target", 0.1, "--data-dir", idx_folder, "--figure", tmp_path / "figure.svg")
    printed, figures = _run("time_to_accuracy", *flags, "--json", tmp_path / "figures.json")
    ((first, second),) = figures["keras_recipe"]
    assert 0 < first[0] < second[0]
    assert [len(points) for points in figures["presets"].values()] == [1, 1]
    for preset in ("sprint", "fast"):
        assert f"{preset}: {figures['verdicts'][preset]['sentence']}" in printed
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_roofline_shares_of_a_step_are_below_one(tmp_path):
    flags = ("--presets", "sprint", "fast", "--rounds", 2, "--steps", 4, "--json", tmp_path / "figures.json")
    printed, figures = _run("roofline", *flags)
    for preset, row in figures["presets"].items():
        assert preset in printed
        assert 0 < row["optimizer"] < 1
        assert row["augmentation"] < 1
        assert row["flop"] > 0
    # The same network and batch; only the augmentation differs.
    assert figures["presets"]["sprint"]["flop"] == figures["presets"]["fast"]["flop"]


def test_the_arithmetic_of_a_dense_network_is_counted_by_hand():
    images, hidden, digits = 784, 512, 10
    forwards = [2 * images * hidden, 2 * hidden * hidden, 2 * hidden * digits]
    assert training_flop(build_model("mlp")) == 3 * sum(forwards) - forwards[0]


def test_scaling_is_ideal_without_communication_and_launches():
    cluster = Cluster(
        tflops=1.0,
        launch_ms=0.0,
        gpus_per_host=8,
        gbytes_in_host=math.inf,
        gbytes_between_hosts=math.inf,
        latency_us=0.0,
    )
    alone, many = (step(cluster, gpus, 64, flop=1e9, gradient_bytes=1e6) for gpus in (1, 64))
    assert alone["step"] == pytest.approx(0.064)
    assert many["images_per_second"] == pytest.approx(64 * alone["images_per_second"])


def test_the_slower_link_counts_between_hosts():
    cluster = Cluster(
        tflops=1.0, launch_ms=0.0, gpus_per_host=8, gbytes_in_host=100.0, gbytes_between_hosts=10.0, latency_us=0.0
    )
    in_host, between = (step(cluster, gpus, 64, flop=1e9, gradient_bytes=1e9)["all_reduce"] for gpus in (8, 16))
    assert in_host == pytest.approx(2 * 7 / 8 / 100)
    assert between == pytest.approx(2 * 15 / 16 / 10)


@pytest.mark.slow
def test_scaling_measures_the_input_pipeline(tmp_path):
    _, figures = _run("scaling", "--json", tmp_path / "figures.json")
    assert figures["input_images_per_second"] > 0
    assert len(figures["rows"]) == 6


@pytest.mark.slow
def test_data_size_trains_on_each_number_of_examples(idx_folder, tmp_path):
    flags = ("--rounds", 1, "--data-dir", idx_folder, "--json", tmp_path / "figures.json")
    _, figures = _run("data_size", *flags)
    sizes = [row["examples"] for row in figures["table"].values()]
    assert sizes == [sizes[0], 4 * sizes[0], 16 * sizes[0]]


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


@pytest.mark.slow
def test_the_parts_of_a_complete_run_are_below_their_sum(idx_folder, tmp_path):
    flags = ("--rounds", 1, "--preset", "sprint", "--data-dir", idx_folder, "--validation-size", 100)
    printed, figures = _run("complete_run", *flags, "--json", tmp_path / "figures.json")
    ((seconds,),) = figures["seconds"].values()
    assert all(name in printed for name in seconds)
    assert min(seconds.values()) > 0
    rest = seconds.pop("the rest")
    published, training, _ = seconds.pop("published"), seconds.pop("training"), seconds.pop("CPU")
    assert published == pytest.approx(training + rest)
    assert sum(seconds.values()) < rest
