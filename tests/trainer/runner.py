"""Whole runs in processes that can be killed.

They are forked from a server that has TensorFlow imported already, which saves ten seconds for each; everything else
they do as `python -m trainer` does it.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

import trainer.run
from serving.contract import IMAGES, MODEL_NAME, PROBABILITIES, SIGNATURE
from trainer.cli import main
from trainer.publishing.versions import live_versions, version_folder
from trainer.runs.tracking import read_rows

TIMINGS = {"images_per_second", "input_wait_fraction", "time"}


def start_run(
    artifacts: Path, *flags: object, environment: Mapping[str, str] = MappingProxyType({}), said: str = "said"
) -> ForkServerProcess:
    """`python -m trainer train --run r FLAGS`, in a process of its own; what it prints goes to the file `said`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, trainer.run.__name__])
    arguments = ["train", "--artifacts", str(artifacts), "--run", "r", *map(str, flags)]
    process = context.Process(target=_run, args=(arguments, artifacts / said, dict(environment)), daemon=True)
    process.start()
    return process


def _run(arguments: list[str], said: Path, environment: dict[str, str]) -> None:
    # A group of its own, as a container is: a kill of the parent's does not reach it by accident.
    os.setpgrp()
    os.environ.update(environment)
    said.parent.mkdir(parents=True, exist_ok=True)
    with said.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.exit(main(arguments))


def wait_for_step(artifacts: Path, step: int) -> None:
    """Return when the run has recorded `step`."""
    deadline = time.monotonic() + 120
    while not any(row["step"] >= step for row in read_rows(artifacts / "runs" / "r")):
        assert time.monotonic() < deadline, "\n".join(file.read_text() for file in artifacts.glob("said*"))
        time.sleep(0.01)


def outcome(artifacts: Path, images: np.ndarray) -> dict[str, Any]:
    """What must be the same, bit for bit, of a run that was killed and of one that was not."""
    import tensorflow as tf

    run, models = artifacts / "runs" / "r", artifacts / "models" / MODEL_NAME
    rows = [{name: value for name, value in row.items() if name not in TIMINGS} for row in read_rows(run)]
    versions = live_versions(models)
    probabilities = []
    for version in versions:
        answer = tf.saved_model.load(str(version_folder(models, version))).signatures[SIGNATURE]
        probabilities.append(answer(**{IMAGES: tf.constant(images)})[PROBABILITIES].numpy().tobytes())
    result = json.loads((run / "result.json").read_text())
    return {
        "exit_code": result["exit_code"],
        "evaluation": result["evaluation"],
        "weights": (run / "model.weights.h5").read_bytes(),
        "rows": rows,
        "versions": len(versions),
        "probabilities": probabilities,
    }
