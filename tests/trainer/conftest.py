"""What several trainer tests share: real data, one small trained model, and the command line as a user runs it."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from tests.once import made_once

REPOSITORY = Path(__file__).parents[2]
MNIST = Path(os.environ.get("MNIST_DIR", REPOSITORY.parent / "shared" / "data" / "mnist"))


@pytest.fixture(scope="session")
def mnist_files() -> Path:
    """The folder with the four original MNIST files."""
    if not (MNIST / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip(f"the four MNIST files are not in {MNIST}; set MNIST_DIR to their folder to run this")
    return MNIST


@pytest.fixture(scope="session")
def splits() -> Any:
    from trainer.data.load import load_splits

    return load_splits("optdigits", Path("unused"), validation_size=180)


@pytest.fixture
def tracker() -> Any:
    from trainer.runs.tracking import Tracker

    return Tracker()


@dataclass(frozen=True)
class Trained:
    model: Any
    evaluation: Any
    test: Any


@pytest.fixture(scope="session")
def trained(splits: Any) -> Trained:
    """A network trained for some seconds, good enough to be told from noise."""
    from trainer.config import resolve
    from trainer.evaluation.metrics import evaluate
    from trainer.evaluation.predict import compile_predict
    from trainer.training.distribute import choose_devices
    from trainer.training.loop import Hooks, train

    config = resolve("quickstart", flags={"epochs": 6.0, "width": 0.5})
    result = train(config, splits, choose_devices(), Hooks())
    evaluation = evaluate(compile_predict(result.model), splits.test)
    return Trained(result.model, evaluation, splits.test)


SHORT = ("--epochs", 3, "--width", 0.5, "--pen-weight", 0, "--run", "r", "--min-accuracy", 0.3)
"""Flags of a run that takes seconds and reaches 90 %."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The artefacts of a short run, `r`, that published; not to be changed.

    One run serves all test processes. The files `stdout` and `stderr` hold what it printed.
    """

    def make(artifacts: Path) -> None:
        done = run_trainer("train", "--artifacts", artifacts, *SHORT)
        assert done.returncode == 0, done.stderr
        (artifacts / "stderr").write_text(done.stderr)
        (artifacts / "stdout").write_text(done.stdout)

    return made_once(tmp_path_factory, worker_id, "finished", make)


@pytest.fixture(scope="session")
def normalize_files() -> Any:
    """The preparation of pictures, `normalize(*contents)`, loaded once for all tests of a process."""
    import tensorflow as tf

    from trainer.pictures.normalize import normalize

    return lambda *files: normalize(tf.constant(list(files), tf.string))


@pytest.fixture
def quick_publish(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, publish without what `tests.trainer.runner.QUICK_PUBLISH` leaves out."""
    from tests.trainer.runner import QUICK_PUBLISH

    for name, value in QUICK_PUBLISH.items():
        monkeypatch.setattr(name, value)


def run_trainer(
    *arguments: object, patches: Mapping[str, Any] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """`python -m trainer ARGUMENTS` in a process of its own; see `tests.trainer.runner`."""
    from tests.trainer.runner import run_forked

    return run_forked(*arguments, patches=patches)


def read_result(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "result.json").read_text())


def write_idx(path: Path, array: np.ndarray) -> None:
    header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(header + array.astype(np.uint8).tobytes())
