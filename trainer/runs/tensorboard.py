"""Writes a run's event files for TensorBoard: two TensorBoard runs, `<run>/train` and `<run>/validation`.

Both have the tags `loss` and `accuracy`, so TensorBoard draws them over each other. `train` also has the settings as text,
the graph, an augmented batch, the learning rate and the speed; `validation` has the hyperparameters, histograms of the
weights on request, and all that was measured on the test split, under `test/`.

The events are built from TensorBoard's own protos instead of `tf.summary`, because a row carries its own time: a resumed
run writes its earlier rows again with the times that they had.
"""

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import summary as custom_scalar
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
from tensorboard.plugins.histogram.metadata import create_summary_metadata as create_histogram_metadata
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.plugins.image.metadata import create_summary_metadata as create_image_metadata
from tensorboard.plugins.pr_curve import summary as pr_curve
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

TRAIN, VALIDATION = "train", "validation"
"""The two TensorBoard runs, and the folders of their event files."""

SCALARS = {
    "loss": ("loss", "Mean cross-entropy in nats. Training: with augmentation, dropout and label smoothing."),
    "accuracy": ("accuracy", "Share of correct predictions. Training: on augmented images, with dropout."),
    "learning_rate": ("learning_rate", "Learning rate of the last step."),
    "images_per_second": ("speed/images_per_second", "Training images per second, over all replicas."),
    "input_wait_fraction": ("speed/input_wait_fraction", "Share of the time in which the step waits for its batch."),
}
"""Field of a row -> tag and description."""

CHARTS = {
    "learning": {"accuracy": "^accuracy$", "learning rate": "^learning_rate$"},
    "overfitting": {"loss": "^loss$"},
    "speed": {"images per second": "^speed/images_per_second$", "input wait": "^speed/input_wait_fraction$"},
}
"""The custom scalars tab: category -> title and tag of each chart. Every chart has a line for train and validation."""


class TensorBoard:
    """The event files of one run, open from `__enter__` to `__exit__`."""

    def __init__(self, run_dir: Path):
        """Write to `run_dir`/train and `run_dir`/validation."""
        self._folders = {name: run_dir / name for name in (TRAIN, VALIDATION)}
        self._writers: dict[str, EventFileWriter] = {}

    def __enter__(self) -> "TensorBoard":
        for name, folder in self._folders.items():
            shutil.rmtree(folder, ignore_errors=True)
            with _as_os_error():
                self._writers[name] = EventFileWriter(str(folder), max_queue_size=1000, flush_secs=5)
            # Tells a TensorBoard that is running to discard what it has read of this run.
            self._write(name, Event(wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)))
        self._add(TRAIN, custom_scalar.pb(_layout()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _as_os_error():
            for writer in self._writers.values():
                writer.close()
        self._writers = {}

    def row(self, row: Mapping[str, Any]) -> None:
        """Write a row of metrics.jsonl: scalars, or the histograms of the weights."""
        if row["kind"] == "weights":
            for name, histogram in row["histograms"].items():
                self._add(VALIDATION, _histogram(f"weights/{name}", histogram), row["step"], row["time"])
            return
        for field, (tag, description) in SCALARS.items():
            if field in row:
                self._add(row["kind"], scalar_pb(tag, row[field], description), row["step"], row["time"])

    def text(self, name: str, table: Mapping[str, Any]) -> None:
        """Write a table of names and values to the text tab."""
        shown = {key: "none" if value in (None, "") else f"`{value}`" for key, value in table.items()}
        lines = ("| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in shown.items()))
        self._add(TRAIN, text_pb(name, "\n".join(lines)))

    def hyperparameters(self, run: str, settings: Mapping[str, Any]) -> None:
        """Write the settings of the run for the hparams tab, which shows them beside the validation and test scores."""
        plain = {name: value for name, value in settings.items() if value is not None}
        if plain:
            self._add(VALIDATION, hparams.hparams_pb(plain, trial_id=run))

    def graph(self, model: keras.Model) -> None:
        """Write the graph of the model's forward pass."""
        spec = tf.TensorSpec((None, *model.input_shape[1:]), model.input.dtype, name="images")
        forward = tf.function(lambda images: model(images, training=False), autograph=False).get_concrete_function(spec)
        graph = forward.graph.as_graph_def(add_shapes=True)
        # Keras enters the scope of each layer twice, so TensorFlow names the second one conv1_1.
        numbered = re.compile(rf"\b({'|'.join([model.name, *(layer.name for layer in model.layers)])})_1(?=/)")
        for node in graph.node:
            node.name = numbered.sub(r"\1", node.name)
            node.input[:] = [numbered.sub(r"\1", name) for name in node.input]
        self._write(TRAIN, Event(wall_time=time.time(), graph_def=graph.SerializeToString()))

    def scalars(self, values: Mapping[str, tuple[float, str]], step: int) -> None:
        """Write measurements on the test split: tag -> value and description."""
        for tag, (value, description) in values.items():
            self._add(VALIDATION, scalar_pb(tag, value, description), step)

    def image(self, run: str, tag: str, png: bytes, *, step: int, description: str) -> None:
        """Write one PNG file to the TensorBoard run `run`."""
        width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # PNG stores them there
        # Written by hand: tf.summary.image would encode the picture again.
        tensor = tf.make_tensor_proto([str(width), str(height), png], dtype=tf.string)
        metadata = create_image_metadata(display_name=None, description=description)
        value = Summary.Value(tag=tag, metadata=metadata)
        value.tensor.ParseFromString(tensor.SerializeToString())
        self._add(run, Summary(value=[value]), step)

    def pr_curves(self, probabilities: np.ndarray, labels: np.ndarray, step: int) -> None:
        """Write a precision-recall curve for each digit.

        Args:
            probabilities: float32 [N, 10].
            labels: uint8 [N].
            step: the step after which they were computed.
        """
        for digit in range(probabilities.shape[1]):
            description = f"Precision and recall of the digit {digit} on the test split, over all thresholds."
            summary = pr_curve.pb(
                f"test/digit_{digit}", labels == digit, probabilities[:, digit], description=description
            )
            self._add(VALIDATION, Summary.FromString(summary.SerializeToString()), step)

    def projector(self, embeddings: np.ndarray, sprites: bytes, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write the vectors of test digits for the projector tab.

        Args:
            embeddings: float32 [N, D].
            sprites: one square PNG file of N pictures of 28x28 pixels, in rows.
            columns: facts about each vector, by name.
        """
        folder = self._folders[VALIDATION]
        np.savetxt(folder / "embeddings.tsv", embeddings, fmt="%.4g", delimiter="\t")
        (folder / "sprites.png").write_bytes(sprites)
        rows = ["\t".join(columns), *("\t".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        (folder / "metadata.tsv").write_text("\n".join(rows) + "\n")
        config = ProjectorConfig()
        embedding = config.embeddings.add(
            tensor_name="test digits before the last layer", tensor_path="embeddings.tsv", metadata_path="metadata.tsv"
        )
        embedding.sprite.image_path = "sprites.png"
        embedding.sprite.single_image_dim.extend([28, 28])
        (folder / "projector_config.pbtxt").write_text(str(config))

    def _add(self, run: str, summary: Any, step: int = 0, wall_time: float | None = None) -> None:
        # Some plugins build TensorFlow's Summary and some TensorBoard's; they are the same bytes.
        own = summary if isinstance(summary, Summary) else Summary.FromString(summary.SerializeToString())
        self._write(run, Event(wall_time=wall_time or time.time(), step=step, summary=own))

    def _write(self, run: str, event: Event) -> None:
        with _as_os_error():
            self._writers[run].add_event(event)


def _histogram(tag: str, histogram: Mapping[str, Sequence[float]]) -> Summary:
    # Written by hand: TensorBoard's own function counts the values, and a row has only their counts.
    edges = histogram["edges"]
    buckets = np.array([edges[:-1], edges[1:], histogram["counts"]], np.float64).T
    metadata = create_histogram_metadata(display_name=None, description="Of the weights that were evaluated.")
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=make_tensor_proto(buckets))])


def _layout() -> Layout:
    return Layout(
        category=[
            Category(
                title=category,
                chart=[Chart(title=title, multiline=MultilineChartContent(tag=[tag])) for title, tag in charts.items()],
            )
            for category, charts in CHARTS.items()
        ]
    )


@contextmanager
def _as_os_error() -> Iterator[None]:
    # TensorBoard writes through TensorFlow, which raises its own error class when the disk is full.
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"cannot write TensorBoard's events: {error.message}") from error
