"""`--precision auto`: chosen by the hardware, and kept when a run is resumed."""

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from trainer import precision
from trainer.config import TrainConfig, refuse_mismatch, resolve, what_it_computes
from trainer.errors import ConfigError
from trainer.precision import fixed_precision, machine_precision
from trainer.runs.checkpoint import FOLDER, Checkpoint, write_checkpoint
from trainer.runs.folder import open_run_folder

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ("fpu sse2 avx2 avx512f avx512_vnni", "float32"),
        ("fpu avx512f avx512_bf16 avx512vbmi", "mixed_bfloat16"),
        ("fpu avx512f amx_bf16 amx_tile", "mixed_bfloat16"),
    ],
)
def test_a_cpu_decides_by_its_features(tmp_path: Path, features: str, expected: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: some CPU\nflags\t\t: {features}\n")
    assert machine_precision(tmp_path / "cpuinfo") == expected


def test_a_machine_without_cpuinfo_uses_float32(tmp_path: Path) -> None:
    assert machine_precision(tmp_path / "none") == "float32"


@pytest.mark.parametrize(("answer", "expected"), [("9.0\n8.0", "mixed_bfloat16"), ("9.0\n7.5", "float32")])
def test_the_weakest_gpu_decides(monkeypatch, tmp_path: Path, answer: str, expected: str) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine_precision(tmp_path / "none") == expected
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert machine_precision(tmp_path / "none") == "float32"


def test_only_auto_is_replaced() -> None:
    assert fixed_precision("mixed_float16") == "mixed_float16"
    assert fixed_precision("auto") == machine_precision()


def test_a_run_records_the_precision_and_keeps_it_on_another_machine(monkeypatch, tmp_path: Path) -> None:
    config = TrainConfig(artifacts=tmp_path, run="r", precision="auto")
    monkeypatch.setattr(precision, "machine_precision", lambda: "mixed_bfloat16")
    with open_run_folder(config, NOW) as opened:
        assert opened.precision == "mixed_bfloat16"
    assert resolve(file=config.run_dir / "config.json").precision == "mixed_bfloat16"
    write_checkpoint(config.run_dir / FOLDER, Checkpoint(1, {"losses": np.zeros(1)}, {"is_trained": False}))
    monkeypatch.setattr(precision, "machine_precision", lambda: "float32")
    with open_run_folder(config, NOW) as resumed:
        assert resumed.precision == "mixed_bfloat16"
    other = dataclasses.replace(config, precision="float32")
    with (
        pytest.raises(ConfigError, match="precision was 'mixed_bfloat16' and is 'float32'"),
        open_run_folder(other, NOW),
    ):
        pass


def test_auto_matches_what_it_became() -> None:
    saved = what_it_computes(TrainConfig(precision="mixed_bfloat16"))
    refuse_mismatch(saved, what_it_computes(TrainConfig(precision="auto")), "run 'r'")
