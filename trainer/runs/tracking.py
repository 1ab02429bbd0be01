"""Records a run's progress: metrics.jsonl has every row, TensorBoard and the console show them.

The training loop reports to a `Tracker`. After a stop, `RunTracker.start` keeps the rows up to the checkpoint from which
training resumes, so the records of a resumed run have neither gaps nor repeats.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from trainer.runs.atomic import write_atomically
from trainer.runs.console import SILENT, Console, print_to_stderr
from trainer.runs.tensorboard import TensorBoard

METRICS_FILE = "metrics.jsonl"

HISTOGRAM_BINS = 30


class Tracker:
    """Keeps the training loop's rows in memory: for tests, and for workers that are not the chief."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.steps = 0
        self.console = SILENT

    def start(self, steps: int, done: int = 0) -> None:  # noqa: ARG002
        """Begin: the run has `steps` steps in total, of which earlier attempts trained the first `done`."""
        self.steps = steps

    def train_interval(
        self,
        *,
        step: int,
        epoch: float,
        losses: np.ndarray,
        accuracy: float,
        learning_rate: float,
        images_per_second: float,
        input_wait_fraction: float,
    ) -> None:
        """Record one call of the compiled function, whose last step was `step`; values are means over its steps."""
        self._record(
            {
                "kind": "train",
                "step": step,
                "epoch": round(epoch, 4),
                "loss": float(losses.mean()),
                "accuracy": accuracy,
                "learning_rate": learning_rate,
                "images_per_second": round(images_per_second, 1),
                "input_wait_fraction": round(input_wait_fraction, 4),
                "time": round(time.time(), 3),
            }
        )

    def validation(self, *, step: int, loss: float, accuracy: float) -> None:
        """Record the score of the weights after `step` on the validation split."""
        row = {"kind": "validation", "step": step, "loss": loss, "accuracy": accuracy, "time": round(time.time(), 3)}
        self._record(row)

    def weights(self, *, step: int, weights: Mapping[str, np.ndarray]) -> None:
        """Record a histogram of each weight of the model as it is evaluated after `step`."""
        histograms = {}
        for name, values in weights.items():
            counts, edges = np.histogram(values, HISTOGRAM_BINS)
            histograms[name] = {"edges": [float(f"{edge:.6g}") for edge in edges], "counts": counts.tolist()}
        self._record({"kind": "weights", "step": step, "histograms": histograms, "time": round(time.time(), 3)})

    def sync(self) -> None:
        """Flush every row to the disk."""

    def _record(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


class RunTracker(Tracker):
    """Records one run in its folder, from `start` to `__exit__`."""

    def __init__(
        self,
        run_dir: Path,
        console: Console = SILENT,
        texts: Mapping[str, Mapping[str, Any]] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        on_validation: Callable[[int, float], None] | None = None,
    ):
        """Record in `run_dir` and show the progress on `console`.

        Args:
            run_dir: the run's folder.
            console: prints the progress.
            texts: tables for TensorBoard's text tab, each under its name.
            hyperparameters: the settings of the run, for TensorBoard's hparams tab.
            on_validation: gets epoch and loss of each evaluation on the validation split, after it is recorded.
        """
        super().__init__()
        self.console = console
        self.board = TensorBoard(run_dir)
        """Closed until `start`; after training it takes the test results."""
        self._run_dir = run_dir
        self._texts, self._hyperparameters = texts or {}, hyperparameters or {}
        self._on_validation = on_validation
        self._open = ExitStack()

    def __enter__(self) -> "RunTracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.console.stop()
        self._open.close()

    def start(self, steps: int, done: int = 0) -> None:
        """Begin, as in `Tracker`. Keep the rows that earlier attempts recorded up to step `done`; drop later ones.

        TensorBoard's events are written again from those rows, because a killed attempt may have written events later
        than its last checkpoint.
        """
        super().start(steps, done)
        self.rows = [row for row in read_rows(self._run_dir) if row["step"] <= done]
        path = self._run_dir / METRICS_FILE
        lines = "".join(json.dumps(row) + "\n" for row in self.rows)
        write_atomically(path, lambda partial: partial.write_text(lines))
        self._file = self._open.enter_context(path.open("a"))
        self._open.enter_context(self.board)
        for name, table in self._texts.items():
            self.board.text(name, table)
        self.board.hyperparameters(self._run_dir.name, self._hyperparameters)
        self.console.start(steps, done)
        for row in self.rows:
            self.board.row(row)

    def validation(self, *, step: int, loss: float, accuracy: float) -> None:
        """Record the score, and pass it on to `on_validation`."""
        epoch = next((row["epoch"] for row in reversed(self.rows) if row["kind"] == "train"), 0.0)
        super().validation(step=step, loss=loss, accuracy=accuracy)
        if self._on_validation:
            self._on_validation(round(epoch), loss)

    def sync(self) -> None:
        """Flush every row to the disk, so that a checkpoint is never newer than the rows of its steps."""
        os.fsync(self._file.fileno())

    def _record(self, row: dict[str, Any]) -> None:
        super()._record(row)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self.board.row(row)
        if row["kind"] != "weights":
            self.console.row(row)


def read_rows(run_dir: Path) -> list[dict[str, Any]]:
    """Read a run's metrics.jsonl, without an incomplete last line; empty if there is no such file.

    A damaged line, such as a power cut leaves, is left out with a warning: the rows are only for figures.
    """
    path = run_dir / METRICS_FILE
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.is_file() else []
    rows = [_row_of(line) for line in lines if line.endswith("\n")]
    if damaged := rows.count(None):
        print_to_stderr(f"warning: {path}: {damaged} damaged line(s) are left out")
    return [row for row in rows if row is not None]


def _row_of(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"kind", "step"} <= row.keys() else None
