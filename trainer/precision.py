"""Which arithmetic is fast on this machine: what `--precision auto` stands for.

Nothing here imports TensorFlow: the choice is made, and saved with the run, before TensorFlow starts.
"""

import os
import subprocess
from pathlib import Path
from typing import Literal

Precision = Literal["auto", "float32", "mixed_float16", "mixed_bfloat16", "float64"]

AUTO: Precision = "auto"

CPU_FEATURES = ("avx512_bf16", "amx_bf16")
"""CPUs with one of these multiply bfloat16 about twice as fast as float32; others emulate it, and are slower."""

LEAST_COMPUTE_CAPABILITY = 8.0
"""NVIDIA GPUs from this on (Ampere) have tensor cores for bfloat16."""


def fixed_precision(precision: Precision) -> Precision:
    """Return the precision itself, or the machine's if it is "auto"."""
    return machine_precision() if precision == AUTO else precision


def machine_precision(cpuinfo: Path = Path("/proc/cpuinfo")) -> Precision:
    """Return "mixed_bfloat16" where the GPUs, or else the CPU, compute with it; "float32" elsewhere."""
    if capabilities := _compute_capabilities():
        has_bfloat16 = min(capabilities) >= LEAST_COMPUTE_CAPABILITY
    else:
        try:
            features = cpuinfo.read_text().split()
        except OSError:  # not Linux
            features = []
        has_bfloat16 = any(feature in features for feature in CPU_FEATURES)
    return "mixed_bfloat16" if has_bfloat16 else "float32"


def _compute_capabilities() -> list[float]:
    """Of each GPU that TensorFlow may use; empty if there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return []
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
        return [float(line) for line in done.stdout.splitlines()] if done.returncode == 0 else []
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []
