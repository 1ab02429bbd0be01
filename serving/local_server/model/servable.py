"""One SavedModel, loaded and run as TensorFlow Serving does: through the v1 Session path.

`tf.saved_model.load` uses other code and has accepted exports that TF Serving could not serve.
"""

import ctypes
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
from tensorflow.python.framework import ops
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from serving.local_server.errors import CODES, StatusError, failed_precondition, invalid_argument
from serving.local_server.model.tensors import SignatureTensor, parse_tensor

DEFAULT_SIGNATURE = "serving_default"
"""The signature of a request that names none; the name is TensorFlow's."""


@dataclass(frozen=True)
class LoadedSignature:
    """One entry of the SavedModel's signature map."""

    name: str
    inputs: Mapping[str, SignatureTensor]
    outputs: Mapping[str, SignatureTensor]
    defaults: Mapping[str, np.ndarray]
    """Values of inputs that a request may omit."""

    @property
    def can_batch(self) -> bool:
        """Whether requests can be joined along the first dimension of every input and split again."""
        return all(tensor.has_batch_dimension for tensor in (*self.inputs.values(), *self.outputs.values()))


class Servable:
    """A loaded version: signatures and a session. Any thread may call `run` until `close`.

    Raises StatusError if the SavedModel does not load, with the code and message for GetModelStatus.
    """

    def __init__(self, path: Path, *, intra_op_threads: int = 0, inter_op_threads: int = 0):
        self.path = path
        self._idle = threading.Condition()
        self._running = 0
        options = config_pb2.ConfigProto(
            intra_op_parallelism_threads=intra_op_threads,
            inter_op_parallelism_threads=inter_op_threads,
            use_per_session_threads=False,
            # Otherwise TensorFlow's idle threads compete with the event loop for the cores.
            experimental=config_pb2.ConfigProto.Experimental(disable_thread_spinning=True),
        )
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph, config=options)
        try:
            with graph.as_default():
                meta_graph = _Loader(str(path)).load(self._session, [tf.saved_model.SERVING])
            self.signature_defs = dict(meta_graph.signature_def)
            self.signatures = {name: _signature(name, proto) for name, proto in self.signature_defs.items()}
            self._runs = {
                name: self._make_run(signature)
                for name, signature in self.signatures.items()
                if signature.inputs and signature.outputs
            }
        except Exception as error:
            self._session.close()
            raise _as_status_error(error) from error

    def signature(self, name: str) -> LoadedSignature:
        """Return the signature `name`; an empty name means `serving_default`.

        Raises:
            StatusError: FAILED_PRECONDITION; there is no such signature.
        """
        found = self.signatures.get(name or DEFAULT_SIGNATURE)
        if found is None:
            raise failed_precondition(f'Serving signature key "{name or DEFAULT_SIGNATURE}" not found.')
        return found

    def run(self, signature: LoadedSignature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return every output of `signature` by alias.

        Raises:
            StatusError: INVALID_ARGUMENT for a signature without inputs or outputs (`__saved_model_init_op`), else the
                code of the failing operation.
        """
        if signature.name not in self._runs:
            raise invalid_argument(f'Signature "{signature.name}" has no tensor to feed or fetch')
        feeds = [inputs[alias] for alias in signature.inputs]
        try:
            with self._counted():
                values = self._runs[signature.name](*feeds)
        except tf.errors.OpError as error:
            raise _as_status_error(error) from error
        return dict(zip(signature.outputs, values, strict=True))

    def close(self) -> None:
        """Wait for current runs, then free the session and its variables. Do not call `run` afterwards."""
        with self._idle:
            self._idle.wait_for(lambda: not self._running)
        self._runs.clear()
        self._session.close()
        # A graph is a cycle of references: Python would free it and its native memory hundreds of reloads later.
        ops.dismantle_graph(self._session.graph)
        _release_freed_memory()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        # A request releases its version when its deadline passes, even if its run has not ended yet.
        with self._idle:
            self._running += 1
        try:
            yield
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _make_run(self, signature: LoadedSignature) -> Any:
        # Session.run resolves its fetches and feeds on every call; a callable resolves them once.
        options = config_pb2.CallableOptions(
            feed=[tensor.tensor_name for tensor in signature.inputs.values()],
            fetch=[tensor.tensor_name for tensor in signature.outputs.values()],
        )
        return self._session._make_callable_from_options(options)


def _release_freed_memory() -> None:
    """Return freed memory to the system, as TensorFlow Serving does after an unload; else every reload adds to it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim:
        trim(0)


def _signature(name: str, proto: meta_graph_pb2.SignatureDef) -> LoadedSignature:
    return LoadedSignature(
        name=name,
        inputs={alias: _tensor(alias, info) for alias, info in sorted(proto.inputs.items())},
        outputs={alias: _tensor(alias, info) for alias, info in sorted(proto.outputs.items())},
        defaults={alias: parse_tensor(tensor) for alias, tensor in proto.defaults.items()},
    )


def _tensor(alias: str, info: meta_graph_pb2.TensorInfo) -> SignatureTensor:
    sizes = tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim)
    return SignatureTensor(alias, info.name, info.dtype, None if info.tensor_shape.unknown_rank else sizes)


class _Loader(SavedModelLoader):
    """Loads a SavedModel without variables as TF Serving's C++ loader does: successfully.

    Every request that reads a variable is then FAILED_PRECONDITION.
    """

    def restore_variables(self, sess: Any, saver: Any, import_scope: str | None = None) -> None:
        if tf.io.gfile.exists(f"{self.variables_path}.index"):
            super().restore_variables(sess, saver, import_scope)


def _as_status_error(error: Exception) -> StatusError:
    if isinstance(error, tf.errors.OpError):
        return StatusError(CODES.get(error.error_code, grpc.StatusCode.UNKNOWN), error.message)
    if isinstance(error, OSError):
        return StatusError(grpc.StatusCode.NOT_FOUND, str(error))
    if isinstance(error, RuntimeError) and "MetaGraphDef" in str(error):
        return StatusError(grpc.StatusCode.NOT_FOUND, str(error))
    return StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
