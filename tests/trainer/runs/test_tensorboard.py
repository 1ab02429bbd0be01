"""What the event files of a run hold, as TensorBoard reads them."""

from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from trainer.runs.tensorboard import TensorBoard
from trainer.runs.tracking import RunTracker, read_rows
from trainer.training.model import build_model


def test_histograms_count_every_weight_and_are_the_same_after_a_resume(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(size=(5, 5, 1, 24)).astype(np.float32)
    with RunTracker(tmp_path) as tracker:
        tracker.start(steps=20)
        tracker.weights(step=10, weights={"conv1/kernel": kernel, "conv1/bias": np.zeros(24, np.float32)})
    before = histograms(tmp_path)
    assert set(before) == {"weights/conv1/kernel", "weights/conv1/bias"}
    for tag, count, lowest, highest in (
        ("weights/conv1/kernel", kernel.size, kernel.min(), kernel.max()),
        ("weights/conv1/bias", 24, -0.5, 0.5),
    ):
        left, right, counts = before[tag].T
        assert counts.sum() == count
        np.testing.assert_allclose((left[0], right[-1]), (lowest, highest), rtol=1e-5)
        assert np.array_equal(left[1:], right[:-1])

    with RunTracker(tmp_path) as tracker:
        tracker.start(steps=20, done=10)
    assert len(read_rows(tmp_path)) == 1
    after = histograms(tmp_path)
    for tag, buckets in before.items():
        assert np.array_equal(after[tag], buckets)


def test_a_damaged_line_of_metrics_is_left_out_with_a_warning(tmp_path: Path, capsys) -> None:
    with RunTracker(tmp_path) as tracker:
        tracker.start(steps=20)
        for step in (10, 20):
            tracker.validation(step=step, loss=0.5, accuracy=0.9)
    first, second = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_bytes(first + b'\0\0\xff{"kind"\n' + b"[]\n" + second)
    assert [row["step"] for row in read_rows(tmp_path)] == [10, 20]
    assert "metrics.jsonl: 2 damaged line(s) are left out" in capsys.readouterr().err


def test_the_graph_has_the_names_of_the_layers_without_numbers(tmp_path: Path) -> None:
    with TensorBoard(tmp_path) as board:
        board.graph(build_model("lenet", width=0.25))
    events = EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    nodes = {node.name: node for node in events.Graph().node}
    scopes = list(
        dict.fromkeys(name.split("/")[1] for name in nodes if name.startswith("lenet/") and name.count("/") > 1)
    )
    assert scopes == [
        "add_channel", "scale", "conv1", "pool1", "relu1", "conv2", "pool2", "relu2", "flatten", "dense", "logits",
    ]  # fmt: skip
    for node in nodes.values():
        assert {name.lstrip("^").partition(":")[0] for name in node.input} <= set(nodes), "every edge leads to a node"


def test_a_setting_without_a_value_is_none_in_the_text_tab(tmp_path: Path) -> None:
    with TensorBoard(tmp_path) as board:
        board.text("config", {"run": "a", "init_from": "", "data_dir": None, "dropout": 0.0})
    events = EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    (event,) = events.Tensors("config")
    rows = make_ndarray(event.tensor_proto).item().decode().splitlines()[2:]
    assert rows == ["| run | `a` |", "| init_from | none |", "| data_dir | none |", "| dropout | `0.0` |"]


def histograms(run_dir: Path) -> dict[str, np.ndarray]:
    """Tag -> the only histogram of it: left edge, right edge and count of each bin."""
    events = EventAccumulator(str(run_dir / "validation"), size_guidance={"tensors": 0})
    events.Reload()
    found = {}
    for tag in events.Tags()["tensors"]:
        if tag.startswith("weights/"):
            assert events.SummaryMetadata(tag).plugin_data.plugin_name == "histograms"
            (event,) = events.Tensors(tag)
            assert event.step == 10
            found[tag] = make_ndarray(event.tensor_proto)
    return found
