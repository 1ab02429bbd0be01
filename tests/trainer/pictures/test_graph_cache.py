"""The cache of traced graphs: equal results, one trace for each version of the source, and no harm without it."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from trainer.pictures import graph_cache
from trainer.pictures.graph_cache import trace_once

SPEC = tf.TensorSpec([None], tf.float32)

traces = 0


def running_sums(values: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """A function with a loop, a branch and repeated constants."""
    global traces
    traces += 1
    doubled = tf.cond(tf.reduce_sum(values) > 2.0, lambda: values * 2.0 + 2.0, lambda: values + 2.0)
    total = tf.while_loop(lambda i, _: i < tf.size(values), lambda i, t: (i + 1, t + 2.0 * values[i]), [0, 2.0])[1]
    return doubled, total, tf.size(values)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    global traces
    traces = 0
    return tmp_path / "digits"


def outputs(values: tuple[float, ...] = (1.0, 3.0)) -> list[Any]:
    return [output.numpy().tolist() for output in trace_once(running_sums, SPEC)(tf.constant(values))]


EXPECTED = [[4.0, 8.0], 10.0, 2]


def test_the_graph_is_traced_once_and_read_afterwards() -> None:
    assert outputs() == EXPECTED
    assert outputs() == EXPECTED
    assert outputs((0.5,)) == [[2.5], 3.0, 1]
    assert traces == 1


def test_it_becomes_part_of_a_function_that_is_being_traced(folder: Path) -> None:
    @tf.function(autograph=False)
    def caller(values: tf.Tensor) -> list[tf.Tensor]:
        first, second = (trace_once(running_sums, SPEC)(values * factor) for factor in (1.0, 2.0))
        return [first[0] + second[0], first[1] + second[1]]

    assert [output.numpy().tolist() for output in caller(tf.constant([1.0, 3.0]))] == [[10.0, 22.0], 28.0]
    assert traces == 1
    assert [path.suffix for path in folder.iterdir()] == [".pb"]


def test_equal_constants_are_one_node() -> None:
    graph = graph_cache.trace(running_sums, SPEC, prefix="p_")
    for nodes in (graph.node, *(inner.node_def for inner in graph.library.function)):
        values = [node.attr["value"].SerializeToString() for node in nodes if node.op == "Const"]
        assert len(values) == len(set(values))
    assert len(graph.library.function) == 4
    assert {inner.signature.name[:2] for inner in graph.library.function} == {"p_"}


def test_another_source_is_traced_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs()
    monkeypatch.setattr(graph_cache, "_source_key", lambda: "0123456789abcdef")
    assert outputs() == EXPECTED
    assert traces == 2
    assert len(list(folder.iterdir())) == 2


def test_the_key_depends_on_each_source_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "decode.py").write_text("LIMIT = 1")
    monkeypatch.setattr(graph_cache, "__file__", str(tmp_path / "graph_cache.py"))
    before = graph_cache._source_key()
    assert graph_cache._source_key() == before
    (tmp_path / "decode.py").write_text("LIMIT = 2")
    assert graph_cache._source_key() != before


@pytest.mark.parametrize("damage", ["shorter", "empty", "changed"])
def test_a_damaged_file_is_traced_and_written_again(folder: Path, damage: str) -> None:
    outputs()
    (path,) = folder.iterdir()
    content = path.read_bytes()
    path.write_bytes({"shorter": content[:-1], "empty": b"", "changed": content[:-1] + b"x"}[damage])
    assert outputs() == EXPECTED
    assert traces == 2
    assert outputs() == EXPECTED
    assert traces == 2


def test_without_a_writable_folder_each_process_traces(folder: Path) -> None:
    folder.write_text("a file where the folder would be")
    assert outputs() == EXPECTED
    assert outputs() == EXPECTED
    assert traces == 2


def test_a_user_without_a_home_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert outputs() == EXPECTED


def test_files_of_old_versions_are_removed(folder: Path) -> None:
    folder.mkdir()
    old, recent = folder / "normalize-old.pb", folder / "normalize-recent.pb"
    for path, days in ((old, 31), (recent, 29)):
        path.touch()
        os.utime(path, (time.time() - days * 24 * 3600,) * 2)
    outputs()
    assert not old.exists()
    assert recent.exists()
