"""What a run says while it goes on: metrics.jsonl, TensorBoard, and a progress bar or JSON lines.

On a terminal the bar is drawn on standard error; elsewhere standard error gets one JSON line per evaluation and per
`report_seconds`. metrics.jsonl has every row.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm


class Tracker:
    """Records one run in its folder, from `__enter__` to `__exit__`."""

    def __init__(self, run_dir: Path, *, stream: TextIO = sys.stderr, report_seconds: float = 10.0):
        self.run_dir = run_dir
        self.rows: list[dict[str, Any]] = []
        self._stream = stream
        self._report_seconds = report_seconds
        self._last_report = time.monotonic()
        self._last_validation: dict[str, Any] = {}
        self._bar: tqdm | None = None

    def __enter__(self) -> "Tracker":
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._file = (self.run_dir / "metrics.jsonl").open("w")
        self.summaries = tf.summary.create_file_writer(str(self.run_dir / "tensorboard"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_bar()
        self._file.close()
        self.summaries.close()

    def start(self, steps: int) -> None:
        """Announce how many steps will be trained."""
        if self._stream.isatty():
            self._bar = tqdm(total=steps, unit="step", file=self._stream, dynamic_ncols=True, desc="train")

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
        """Record the steps of one call, which ended with `step`; the values are means over them."""
        row = {
            "kind": "train",
            "step": step,
            "epoch": round(epoch, 4),
            "loss": float(losses.mean()),
            "accuracy": accuracy,
            "learning_rate": learning_rate,
            "images_per_second": round(images_per_second, 1),
            "input_wait_fraction": round(input_wait_fraction, 4),
        }
        self._record(row)
        if self._bar:
            self._bar.update(step - self._bar.n)
            self._show(loss=float(losses.mean()), **self._last_validation)
        elif time.monotonic() - self._last_report >= self._report_seconds:
            self._print(row)

    def validation(self, *, step: int, loss: float, accuracy: float) -> None:
        """Record an evaluation of the weights after `step` on the validation split."""
        row = {"kind": "validation", "step": step, "loss": loss, "accuracy": accuracy}
        self._record(row)
        self._last_validation = {"validation": accuracy}
        if not self._bar:
            self._print(row)

    def text(self, name: str, text: str) -> None:
        """Record a text, shown as it is."""
        with self.summaries.as_default(step=0):
            tf.summary.text(name, "    " + text.replace("\n", "\n    "))

    def graph(self, model: keras.Model) -> None:
        """Record the graph of the model's forward pass."""
        spec = tf.TensorSpec((None, *model.input_shape[1:]), model.input.dtype)
        forward = tf.function(lambda images: model(images, training=False)).get_concrete_function(spec)
        with self.summaries.as_default(step=0):
            tf.summary.graph(forward.graph)

    def pictures(self, paths: Sequence[Path], step: int) -> None:
        """Record PNG files, each under its own name."""
        with self.summaries.as_default(step=step):
            for path in paths:
                picture = tf.io.decode_png(path.read_bytes(), channels=3)
                tf.summary.image(path.stem, picture[tf.newaxis])

    def close_bar(self) -> None:
        """Leave the terminal to whoever prints next."""
        if self._bar:
            self._bar.close()
            self._bar = None

    def _record(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        with self.summaries.as_default(step=row["step"]):
            for name, value in row.items():
                if name not in ("kind", "step", "epoch"):
                    tf.summary.scalar(f"{row['kind']}/{name}", value)

    def _show(self, **values: float) -> None:
        if self._bar:
            self._bar.set_postfix({name: f"{value:.4f}" for name, value in values.items()})

    def _print(self, row: dict[str, Any]) -> None:
        self._last_report = time.monotonic()
        print(json.dumps(row), file=self._stream, flush=True)
