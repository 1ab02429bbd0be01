"""One SavedModel, loaded and run the way TensorFlow Serving does it: through the v1 Session path.

`tf.saved_model.load` takes another way through TensorFlow and has accepted exports that TF Serving could not serve, so
a local server built on it would prove little.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from serving.local_server.errors import CODES, ServingError, failed_precondition
from serving.local_server.tensors import TensorSpec

DEFAULT_SIGNATURE = "serving_default"
"""What a request that names no signature gets; the name is TensorFlow's."""

_METHODS = {f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress")}


@dataclass(frozen=True)
class Signature:
    """One entry of the SavedModel's signature map, with what a run of it needs at hand."""

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method_name: str

    @property
    def can_batch(self) -> bool:
        """Whether requests can be joined along the first dimension of every input and split again."""
        return all(spec.has_batch_dimension for spec in (*self.inputs.values(), *self.outputs.values()))

    @property
    def can_predict(self) -> bool:
        return self.method_name in _METHODS


class Servable:
    """A loaded version: signatures and a session. `run` may be called from any thread until `close`.

    Raises ServingError, with the code and message that GetModelStatus is to show, where the SavedModel does not load.
    """

    def __init__(self, path: Path, *, intra_op_threads: int = 0, inter_op_threads: int = 0):
        self.path = path
        self._idle = threading.Condition()
        self._running = 0
        options = config_pb2.ConfigProto(
            intra_op_parallelism_threads=intra_op_threads,
            inter_op_parallelism_threads=inter_op_threads,
            use_per_session_threads=False,
            # TensorFlow's idle threads would take from the cores what answering requests needs.
            experimental=config_pb2.ConfigProto.Experimental(disable_thread_spinning=True),
        )
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph, config=options)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(self._session, [tf.saved_model.SERVING], str(path))
            self.signature_defs = dict(meta_graph.signature_def)
            self.signatures = {name: _signature(name, proto) for name, proto in self.signature_defs.items()}
            self._runs = {
                name: self._make_run(signature) for name, signature in self.signatures.items() if signature.can_predict
            }
        except Exception as error:
            self._session.close()
            raise _as_serving_error(error) from error

    def signature(self, name: str) -> Signature:
        """Returns the signature of that name, `serving_default` for an empty one; else FAILED_PRECONDITION."""
        found = self.signatures.get(name or DEFAULT_SIGNATURE)
        if found is None or not found.can_predict:
            raise failed_precondition(f'Serving signature key "{name or DEFAULT_SIGNATURE}" not found.')
        return found

    def run(self, signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns every output of `signature` by alias. Raises ServingError with the failing operation's code."""
        feeds = [inputs[alias] for alias in signature.inputs]
        try:
            with self._counted():
                values = self._runs[signature.name](*feeds)
        except tf.errors.OpError as error:
            raise _as_serving_error(error) from error
        return dict(zip(signature.outputs, values, strict=True))

    def close(self) -> None:
        """Waits for the runs under way, then frees the session and its variables. No `run` may come after it."""
        with self._idle:
            self._idle.wait_for(lambda: not self._running)
        self._runs.clear()
        self._session.close()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        # A request whose deadline has passed lets go of its version while the run it shares may still be going on.
        with self._idle:
            self._running += 1
        try:
            yield
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _make_run(self, signature: Signature) -> Any:
        # Session.run looks its fetches and feeds up anew on every call; a callable does so once.
        options = config_pb2.CallableOptions(
            feed=[spec.tensor_name for spec in signature.inputs.values()],
            fetch=[spec.tensor_name for spec in signature.outputs.values()],
        )
        return self._session._make_callable_from_options(options)


def _signature(name: str, proto: meta_graph_pb2.SignatureDef) -> Signature:
    return Signature(
        name=name,
        inputs={alias: _spec(alias, info) for alias, info in sorted(proto.inputs.items())},
        outputs={alias: _spec(alias, info) for alias, info in sorted(proto.outputs.items())},
        method_name=proto.method_name,
    )


def _spec(alias: str, info: meta_graph_pb2.TensorInfo) -> TensorSpec:
    sizes = tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim)
    return TensorSpec(alias, info.name, info.dtype, None if info.tensor_shape.unknown_rank else sizes)


def _as_serving_error(error: Exception) -> ServingError:
    if isinstance(error, tf.errors.OpError):
        return ServingError(CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message)
    if isinstance(error, OSError):
        return ServingError(grpc.StatusCode.NOT_FOUND, str(error))
    if isinstance(error, RuntimeError) and "MetaGraphDef" in str(error):
        return ServingError(grpc.StatusCode.NOT_FOUND, str(error))
    return ServingError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
