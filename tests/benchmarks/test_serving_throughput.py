"""The serving benchmark runs, with times too short to measure anything, and its ratios are those of its figures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.serving_throughput import summarise

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_case_is_measured_and_written(tmp_path):
    file = tmp_path / "figures.json"
    flags = ["--generator", "python", "--rounds", "1", "--seconds", "0.2", "--json", str(file)]
    command = [sys.executable, "-m", "benchmarks.serving_throughput", *flags]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    cases = json.loads(file.read_text())["summary"]["cases"]
    assert len(cases) == 8
    for case, figures in cases.items():
        assert case in done.stdout
        assert figures["images_per_second"] > 0
        assert figures["latency_ms"] > 0


def test_ratios_say_what_grpc_and_the_model_could_reach_in_turn():
    rates = {"bare 1": 1000, "bare 32": 4000, "grpc 1": 1000, "grpc 32": 4000, "served 1": 250, "served 32": 1000}
    rates |= {"rest 1": 200, "rest 32": 600}
    summary = summarise([{case: {"images_per_second": rate, "latency_ms": 1.0} for case, rate in rates.items()}])
    assert summary["batching_gain"] == pytest.approx(4)
    assert summary["batching_gain_in_turn"] == pytest.approx(2000 / 500)
    assert summary["share_of_bare_model"] == pytest.approx(0.25)
    assert summary["share_of_bare_model_in_turn"] == pytest.approx(0.5)
    assert summary["added_latency_ms"] == 0
    assert summary["rest_batching_gain"] == pytest.approx(3)
    assert summary["rest_over_grpc_latency"] == pytest.approx(1)
