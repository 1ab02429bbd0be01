"""Commands of the trainer in processes of their own, which a test can kill.

The processes are forked from a server that has imported TensorFlow, which saves several seconds each. Apart from that a
process does what `python -m trainer` does.
"""

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from serving.contract import IMAGES, MODEL_NAME, PROBABILITIES, SIGNATURE
from tests.trainer.publisher import take_as_prepared
from trainer.cli import main
from trainer.publishing.versions import live_versions, version_folder
from trainer.runs.tracking import read_rows

REPOSITORY = Path(__file__).parents[2]

PRELOADED = (
    "trainer.data.optdigits",
    "trainer.steps.publish",
    "trainer.evaluation.report",
    "sklearn.datasets",
)
"""What `trainer.run` and its steps import late."""


@contextmanager
def _unverified() -> Iterator[Callable[..., dict[str, Any]]]:
    def verify(*_: object, meanwhile: Callable[[], None]) -> dict[str, Any]:
        meanwhile()
        return {}

    yield verify


def _nothing(*_: object, **__: object) -> None:
    pass


QUICK_PUBLISH = MappingProxyType(
    {
        "trainer.publishing.verify_export.fresh_process": _unverified,
        "trainer.publishing.export.normalize": take_as_prepared,
        "trainer.evaluation.figures.save_figures": _nothing,
    }
)
"""Patches that leave out the verification in a fresh process, the preparation of pictures in the exported graph, and the
figures. They have tests of their own, and take twelve seconds.
"""


UNREPORTED = MappingProxyType(
    {
        "trainer.steps.evaluate.show_in_tensorboard": _nothing,
        "trainer.evaluation.figures.save_figures": _nothing,
        "trainer.steps.publish.report": _nothing,
    }
)
"""Patches that leave out figures, report and TensorBoard's pictures after the training, which take four seconds."""

TIMINGS = {"images_per_second", "input_wait_fraction", "time"}


def start_run(
    artifacts: Path,
    *flags: object,
    environment: Mapping[str, str] = MappingProxyType({}),
    said: str = "said",
    patches: Mapping[str, Any] = MappingProxyType({}),
) -> ForkServerProcess:
    """`python -m trainer train --run r FLAGS`, in a process of its own.

    Args:
        artifacts: folder of all outputs.
        flags: of the command.
        environment: variables set in the process.
        said: name of the file in `artifacts` that gets the output.
        patches: full names of things in the trainer's modules, and what stands there in the process instead.
    """
    arguments = ["train", "--artifacts", str(artifacts), "--run", "r", *map(str, flags)]
    return start_forked(arguments, artifacts / said, artifacts / said, environment, patches)


def run_forked(
    *arguments: object, patches: Mapping[str, Any] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """`python -m trainer ARGUMENTS`, run to its end."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = start_forked([*map(str, arguments)], out, err, patches=patches)
        process.join(600)
        assert process.exitcode is not None, f"still running after 600 s: {err.read_text()}"
        return subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), err.read_text())


def start_forked(
    arguments: list[str],
    out: Path,
    err: Path,
    environment: Mapping[str, str] = MappingProxyType({}),
    patches: Mapping[str, Any] = MappingProxyType({}),
) -> ForkServerProcess:
    """Start `python -m trainer ARGUMENTS`, its output appended to the files `out` and `err`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *PRELOADED])
    process = context.Process(target=_run, args=(arguments, out, err, dict(environment), dict(patches)), daemon=True)
    process.start()
    return process


def _run(arguments: list[str], out: Path, err: Path, environment: dict[str, str], patches: dict[str, Any]) -> None:
    # A group of its own, as in a container: a signal to the parent's group does not reach it.
    os.setpgrp()
    os.chdir(REPOSITORY)
    os.environ.update(environment)
    for path, descriptor in ((out, 1), (err, 2)):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    for name, value in patches.items():
        module, _, attribute = name.rpartition(".")
        setattr(importlib.import_module(module), attribute, value)
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
