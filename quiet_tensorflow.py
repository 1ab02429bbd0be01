"""Import TensorFlow without its log on standard error, and faster; used by both `trainer` and `serving.local_server`.

    import quiet_tensorflow

    quiet_tensorflow.install()
    import tensorflow  # now, or later, anywhere in the process

On a healthy machine without a GPU, the import prints half a dozen lines that look like a broken one: "failed call to
cuInit: UNKNOWN ERROR". `TF_CPP_MIN_LOG_LEVEL` alone does not remove them: some are printed before TensorFlow reads it. So
file descriptor 2 leads into a buffer during the import. If the import raises an exception, the buffer is printed.

TensorFlow imports Keras, and Keras imports scikit-learn and pyplot where they are installed. That is a third of the time,
for wrappers that nothing here uses. So packages can be hidden during the import; afterwards anyone can import them.

The import makes half a million objects that live as long as the process. The garbage collector leaves them out: during
the import, later, and at the end of the process, where searching them took another second.

`TF_CPP_MIN_LOG_LEVEL=0` brings the whole log back: any value below 3 in the environment turns this module off. Use it to
see why a process dies during the import, because then nothing prints the buffer.
"""

import gc
import importlib.machinery
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from types import ModuleType

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
"""The environment variable for the log of TensorFlow's C++ code: 0 = everything, 3 = fatal errors only."""

STDERR = 2
"""File descriptor; the C++ code writes to it without going through `sys.stderr`."""


KERAS_EXTRAS = ("sklearn", "matplotlib")
"""Packages that Keras imports if it finds them, and works without."""


def install(hidden: Sequence[str] = KERAS_EXTRAS) -> None:
    """Make the first `import tensorflow` of this process a quiet one. Does not import it.

    Args:
        hidden: packages that TensorFlow shall not find during its import; a later call replaces those of an earlier one.
    """
    if os.environ.setdefault(LOG_LEVEL, "3") != "3":
        return
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if "tensorflow" not in sys.modules:
        sys.meta_path[:] = [_Finder(hidden), *(finder for finder in sys.meta_path if not isinstance(finder, _Finder))]


class _Finder:
    """Finds TensorFlow as Python does, and wraps the function that executes it."""

    def __init__(self, hidden: Sequence[str]):
        self._hidden = hidden

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: _quietly(execute, module, self._hidden)  # type: ignore[method-assign]
        return spec


def _quietly(execute: Callable[[ModuleType], None], module: ModuleType, hidden: Sequence[str]) -> None:
    absent = [name for name in hidden if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None makes their import fail
    collects_garbage = gc.isenabled()
    gc.disable()
    with tempfile.TemporaryFile() as buffer:
        stderr = os.dup(STDERR)
        os.dup2(buffer.fileno(), STDERR)
        try:
            execute(module)
        except Exception:
            buffer.seek(0)
            os.write(stderr, buffer.read())
            raise
        finally:
            for name in absent:
                del sys.modules[name]
            os.dup2(stderr, STDERR)
            os.close(stderr)
            if collects_garbage:
                gc.enable()
    gc.freeze()
