"""A cold `predict` needs less time and memory than an import of the API package: the reason for our own client."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "client_start.py"
PEAK_MEGABYTES = 80


@pytest.mark.slow
def test_a_cold_predict_stays_within_its_memory_and_far_below_the_api_packages_time(tmp_path):
    written = tmp_path / "figures.json"
    command = [sys.executable, BENCHMARK, "--rounds", "1", "--json", written]
    done = subprocess.run(command, cwd=BENCHMARK.parents[1], capture_output=True, text=True, timeout=300, check=True)
    client, package = json.loads(written.read_text())["results"].values()
    assert client["peak_megabytes"] <= PEAK_MEGABYTES
    assert client["wall_seconds"] <= package["wall_seconds"] / 8  # seconds would measure other work, too
    assert "python -m serving predict" in done.stdout
