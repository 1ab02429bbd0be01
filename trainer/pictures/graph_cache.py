"""Trace a function into a graph once for each version of its source, and keep the graph in the user's cache folder.

Tracing the preparation of pictures takes seconds, in every process that exports a model or reads pictures. Reading its
graph back takes a tenth of one. The name of the file holds a hash of this package's source and of TensorFlow's version, so
another source or version is traced again. A process that cannot write to the folder traces for itself.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import suppress
from pathlib import Path

import tensorflow as tf

import serving.contract

INPUT, OUTPUT = "input", "output_"
"""Names of nodes of the graph; a number follows the second."""

DIGEST_BYTES = 32
"""A file begins with the SHA-256 of what follows."""

OLD_SECONDS = 30 * 24 * 3600
"""Files of other versions are removed at this age."""


Traced = Callable[[tf.Tensor], Sequence[tf.Tensor]]


def trace_once(function: Traced, spec: tf.TensorSpec) -> Traced:
    """Return a function of this package as its graph, from the cache folder if it is there.

    Args:
        function: takes one tensor, and uses no variables.
        spec: shape and type of the tensor.

    Returns:
        A function that adds the operations to the graph that is being traced. In eager code, it computes the results.
    """
    name, key = function.__name__.strip("_"), _source_key()
    path = _cache_folder() / f"{name}-{key}.pb"
    if content := _read(path):
        graph = tf.compat.v1.GraphDef.FromString(content)
    else:
        graph = trace(function, spec, prefix=f"{name}_{key}_")
        with suppress(OSError):  # The next process traces again.
            _write(path, graph.SerializeToString(deterministic=True))
    outputs = [f"{node.name}:0" for node in graph.node if node.name.startswith(OUTPUT)]

    def add_to_graph(value: tf.Tensor) -> Sequence[tf.Tensor]:
        return tf.graph_util.import_graph_def(graph, {f"{INPUT}:0": value}, outputs, name="")

    with tf.init_scope():  # Also where a function is being traced: this tells the eager runtime the inner functions.
        compiled = tf.compat.v1.wrap_function(add_to_graph, [spec])
    return lambda value: compiled(value) if tf.executing_eagerly() else add_to_graph(value)


def trace(function: Traced, spec: tf.TensorSpec, prefix: str) -> tf.compat.v1.GraphDef:
    """Return the graph of a function, from the node `INPUT` to nodes whose names begin with `OUTPUT`.

    The names of all inner functions begin with `prefix`. TensorFlow numbers these functions from 0 in each process, so
    without it, other functions of the process that reads the graph could have the same names.
    """

    # AutoGraph would take longer than all the rest, and finds nothing to do.
    @tf.function(input_signature=[spec], autograph=False)
    def traced(value: tf.Tensor) -> None:
        for number, output in enumerate(function(tf.identity(value, INPUT))):
            tf.identity(output, f"{OUTPUT}{number}")

    with tf.init_scope():  # Another function may be being traced.
        graph = traced.get_concrete_function().graph.as_graph_def()
    _share_constants(graph.node)
    for node in graph.node:
        _rename_functions(node, prefix)
    for inner in graph.library.function:
        inner.signature.name = prefix + inner.signature.name
        renamed = _share_constants(inner.node_def)
        for name, tensor in list(inner.ret.items()):
            inner.ret[name] = renamed(tensor)
        for node in inner.node_def:
            _rename_functions(node, prefix)
    return graph


def _source_key() -> str:
    """Return a hash of all that the graph depends on: this package, what it imports, TensorFlow."""
    digest = hashlib.sha256(tf.__version__.encode())
    for path in (*sorted(Path(__file__).parent.glob("*.py*")), Path(serving.contract.__file__)):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    """Return `digits` in the user's cache folder, as the XDG Base Directory Specification says."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "digits"
    try:
        return Path.home() / ".cache" / "digits"
    except RuntimeError:  # This user has no home: a folder that cannot be.
        return Path(os.devnull) / "digits"


def _read(path: Path) -> bytes | None:
    """Return what `_write` wrote; None if there is no file, or a damaged one."""
    with suppress(OSError):
        content = path.read_bytes()
        if hashlib.sha256(content[DIGEST_BYTES:]).digest() == content[:DIGEST_BYTES]:
            return content[DIGEST_BYTES:]
    return None


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # Another process may write the same file.
        partial = Path(folder) / path.name
        partial.write_bytes(hashlib.sha256(content).digest() + content)
        partial.replace(path)
    for other in path.parent.glob("*.pb"):
        if path.stat().st_mtime - other.stat().st_mtime > OLD_SECONDS:
            other.unlink(missing_ok=True)


def _rename_functions(node: tf.compat.v1.NodeDef, prefix: str) -> None:
    for value in node.attr.values():
        for function in (value.func, *value.list.func):
            if function.name:
                function.name = prefix + function.name


def _share_constants(nodes: MutableSequence[tf.compat.v1.NodeDef]) -> Callable[[str], str]:
    """Let equal constants be one node; return a function that gives the new name of a tensor.

    TensorFlow makes a node for each number in the source. These are a third of all nodes, and the time to load a graph
    grows with the number of its nodes.
    """
    first: dict[bytes, str] = {}
    replaced: dict[str, str] = {}
    kept = []
    for node in nodes:
        if node.op == "Const" and not node.input:
            value = node.attr["value"].SerializeToString(deterministic=True)
            if value in first:
                replaced[node.name] = first[value]
                continue
            first[value] = node.name
        kept.append(node.FromString(node.SerializeToString()))

    def renamed(tensor: str) -> str:  # "node", "node:1", "node:output:0", or "^node" for a control input
        mark, name, output = re.fullmatch(r"(\^?)([^:]*)(.*)", tensor).groups()  # type: ignore[union-attr]
        return mark + replaced.get(name, name) + output

    for node in kept:
        node.input[:] = map(renamed, node.input)
    del nodes[:]
    nodes.extend(kept)
    return renamed
