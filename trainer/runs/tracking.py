"""Records a run's progress: metrics.jsonl, TensorBoard, and a progress bar or JSON lines on standard error.

A terminal gets the bar. Anything else gets one JSON line per evaluation and per `report_seconds`. metrics.jsonl has
every row.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import keras
import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tqdm import tqdm

from trainer.runs.atomic import write_atomically

METRICS_FILE = "metrics.jsonl"


class Tracker:
    """Keeps the training loop's rows in memory: for tests, and for workers that are not the chief."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.steps = 0

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

    def sync(self) -> None:
        """Flush every row to the disk."""

    def _record(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


class RunTracker(Tracker):
    """Records one run in its folder, from `start` to `__exit__`.

    TensorBoard's events are built here from its own protos instead of `tf.summary`: a row carries its own time, and a
    resumed run writes its earlier rows again with the times that they had.
    """

    def __init__(
        self, run_dir: Path, texts: dict[str, str], *, stream: TextIO | None = None, report_seconds: float = 10.0
    ):
        """Record in `run_dir`.

        Args:
            run_dir: the run's folder.
            texts: shown on TensorBoard's text tab, each under its name.
            stream: where progress is printed; standard error by default.
            report_seconds: least time between two lines of progress where there is no terminal.
        """
        super().__init__()
        self._run_dir = run_dir
        self._texts = texts
        self._stream = stream or sys.stderr
        self._report_seconds = report_seconds
        self._last_report = time.monotonic()
        self._last_validation: dict[str, Any] = {}
        self._bar: tqdm | None = None
        self._open = ExitStack()

    def __enter__(self) -> "RunTracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_bar()
        with _as_os_error():
            self._open.close()

    def start(self, steps: int, done: int = 0) -> None:
        """Begin, as in `Tracker`. Keep the rows that earlier attempts recorded up to step `done`; drop later ones.

        TensorBoard's events are rewritten from those rows, because a killed attempt may have written events later than
        its last checkpoint. The first event tells a running TensorBoard to discard what it has read.
        """
        super().start(steps, done)
        self.rows = [row for row in read_rows(self._run_dir) if row["step"] <= done]
        path = self._run_dir / METRICS_FILE
        lines = "".join(json.dumps(row) + "\n" for row in self.rows)
        write_atomically(path, lambda partial: partial.write_text(lines))
        self._file = self._open.enter_context(path.open("a"))
        folder = self._run_dir / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        with _as_os_error():
            self._events = EventFileWriter(str(folder), max_queue_size=1000, flush_secs=5)
        self._open.callback(self._events.close)
        self._write(Event(wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)))
        for name, text in self._texts.items():
            # Markdown shows lines that are indented by four spaces without changing them.
            self._add(text_pb(name, "    " + text.replace("\n", "\n    ")))
        for row in self.rows:
            self._add_scalars(row)
        if self._stream.isatty():
            self._bar = tqdm(
                total=steps, initial=done, unit="step", file=self._stream, dynamic_ncols=True, desc="train"
            )

    def sync(self) -> None:
        """Flush every row to the disk, so that a checkpoint is never newer than the rows of its steps."""
        os.fsync(self._file.fileno())

    def graph(self, model: keras.Model) -> None:
        """Record the graph of the model's forward pass."""
        spec = tf.TensorSpec((None, *model.input_shape[1:]), model.input.dtype)
        forward = tf.function(lambda images: model(images, training=False)).get_concrete_function(spec)
        graph = forward.graph.as_graph_def(add_shapes=True).SerializeToString()
        self._write(Event(wall_time=time.time(), graph_def=graph))

    def pictures(self, paths: Iterable[Path], step: int) -> None:
        """Record PNG files, each tagged with its file name."""
        for path in paths:
            png = path.read_bytes()
            width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # PNG stores them there
            # Written by hand: tf.summary.image would decode and encode each file again.
            tensor = tf.make_tensor_proto([str(width), str(height), png], dtype=tf.string)
            metadata = create_summary_metadata(display_name=None, description=None)
            value = Summary.Value(tag=path.stem, metadata=metadata)
            value.tensor.ParseFromString(tensor.SerializeToString())
            self._add(Summary(value=[value]), step)

    def close_bar(self) -> None:
        """Remove the progress bar, so that other code can print."""
        if self._bar:
            self._bar.close()
            self._bar = None

    def _record(self, row: dict[str, Any]) -> None:
        super()._record(row)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._add_scalars(row)
        if row["kind"] == "validation":
            self._last_validation = {"validation": row["accuracy"]}
        if self._bar:
            self._bar.update(row["step"] - self._bar.n)
            shown = {"loss": self._last_train_loss(), **self._last_validation}
            self._bar.set_postfix({name: f"{value:.4f}" for name, value in shown.items()})
        elif row["kind"] == "validation" or time.monotonic() - self._last_report >= self._report_seconds:
            self._last_report = time.monotonic()
            print(json.dumps(row), file=self._stream, flush=True)

    def _last_train_loss(self) -> float:
        return next(row["loss"] for row in reversed(self.rows) if row["kind"] == "train")

    def _add_scalars(self, row: dict[str, Any]) -> None:
        values = [
            value
            for name, number in row.items()
            if name not in ("kind", "step", "epoch", "time")
            for value in scalar_pb(f"{row['kind']}/{name}", number).value
        ]
        self._add(Summary(value=values), row["step"], row["time"])

    def _add(self, summary: Summary, step: int = 0, wall_time: float | None = None) -> None:
        self._write(Event(wall_time=wall_time or time.time(), step=step, summary=summary))

    def _write(self, event: Event) -> None:
        with _as_os_error():
            self._events.add_event(event)


@contextmanager
def _as_os_error() -> Iterator[None]:
    # TensorBoard writes through TensorFlow, which raises its own error class when the disk is full.
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"cannot write TensorBoard's events: {error.message}") from error


def read_rows(run_dir: Path) -> list[dict[str, Any]]:
    """Read a run's metrics.jsonl, without an incomplete last line; empty if there is no such file."""
    path = run_dir / METRICS_FILE
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
