"""The processes of a search's trials: they end when the search ends."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.config import TrainConfig
from trainer.errors import ExitCode
from trainer.runs.result import read_result
from trainer.runs.signals import StoppedError
from trainer.tuning.pool import STOP_SECONDS, Pool


def test_a_search_that_is_stopped_while_a_trial_waits_for_its_answer_ends_at_once(tmp_path: Path) -> None:
    """The trial waited for an answer that never came, until the search killed it without its state."""
    config = TrainConfig(model="mlp", width=0.25, epochs=3, artifacts=tmp_path, run="trial", checkpoint_steps=4)
    stopped: list[float] = []

    def stop(*_: object) -> bool:
        stopped.append(time.monotonic())
        raise StoppedError("stopped by SIGTERM")

    def trials() -> Iterator[TrainConfig]:
        yield config

    with pytest.raises(StoppedError):
        Pool(1, tmp_path, "text").train(trials(), stop, on_end=lambda _: None)
    assert time.monotonic() - stopped[0] < STOP_SECONDS / 2
    result = read_result(config.run_dir / "trial.json")
    assert result
    assert result.exit_code == ExitCode.STOPPED
    assert list((config.run_dir / "checkpoints").glob("*.npz"))
