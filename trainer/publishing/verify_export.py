"""Verify an exported model in a fresh process, through the v1 Session path that TensorFlow Serving loads it by.

    echo '["FOLDER", "EXPECTED.npz"]' | python -m trainer.publishing.verify_export

prints one JSON object. It exits with 0 if the exported files predict what the trainer predicted, and with 6 if not. A
fresh process shares no state with the exporting one, so it finds what is missing from the files.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import quiet_tensorflow
from serving.contract import (
    BOX,
    CLASSES,
    CONFIDENCE,
    DIGIT,
    DOUBT,
    ENCODED,
    FOUND,
    IMAGE_SHAPE,
    IMAGES,
    NORMALIZED,
    PICTURES,
    PROBABILITIES,
    PROBLEM,
    SIGNATURE,
)
from trainer.errors import ExitCode, RunError

TOLERANCE = 1e-5
"""Largest accepted difference of a probability between the trainer and the exported files."""

BATCH_SIZES = (256, 7)
"""Batch sizes at which probabilities are compared; 7 leaves a remainder."""

TIMEOUT_SECONDS = 600

SIGNATURES = {
    SIGNATURE: ({IMAGES}, {PROBABILITIES, DIGIT, CONFIDENCE}),
    PICTURES: ({ENCODED}, {PROBABILITIES, DIGIT, CONFIDENCE, NORMALIZED, PROBLEM, FOUND, BOX, DOUBT}),
}
"""Inputs and outputs that a version must have."""

WARM_UP_BATCH_SIZES = {SIGNATURE: (1, 8, 32, 128), PICTURES: (1, 8)}
"""The server replays a warm-up record of each batch size when it loads a version. So no request of such a size pays for
the first run."""

WARM_UP_FILE = "tf_serving_warmup_requests"


Verify = Callable[[Path, np.ndarray, np.ndarray], dict[str, Any]]
"""A SavedModel, images uint8 [N, 28, 28], expected probabilities float32 [N, 10] -> the measured values."""


class VerifyThere(Protocol):
    """A `Verify` in another process."""

    def __call__(
        self, folder: Path, images: np.ndarray, probabilities: np.ndarray, meanwhile: Callable[[], None] = ...
    ) -> dict[str, Any]:
        """See `verify_in_fresh_process`; `meanwhile` is called in this process while the other one verifies."""


class ArtifactError(RunError):
    """The exported files do not predict what the trained model predicts."""

    exit_code = ExitCode.ARTIFACT


class VerificationError(RunError):
    """The verification did not come to a result, which says nothing about the exported files."""

    exit_code = ExitCode.IO


def verify_in_fresh_process(
    folder: Path, images: np.ndarray, probabilities: np.ndarray, timeout_seconds: float = TIMEOUT_SECONDS
) -> dict[str, Any]:
    """Run `verify` in a fresh Python process.

    Args:
        folder: the SavedModel.
        images: uint8 [N, 28, 28].
        probabilities: what the trained model predicts for them, float32 [N, 10].
        timeout_seconds: how long the process may take.

    Returns:
        The measured values.

    Raises:
        ArtifactError: the files do not load, or they predict something else.
        VerificationError: the process was killed or took too long. A retry may help.
    """
    with fresh_process(timeout_seconds) as verify_there:
        return verify_there(folder, images, probabilities)


@contextmanager
def fresh_process(timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[VerifyThere]:
    """Start a Python process that imports TensorFlow at once, before there is anything to verify.

    Args:
        timeout_seconds: how long the verification may take.

    Yields:
        `verify` in that process. To be called once at most, when the SavedModel is complete.
    """
    with tempfile.TemporaryDirectory() as scratch:
        expected = Path(scratch) / "expected.npz"
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer.publishing.verify_export"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            # Otherwise a Ctrl-C in the terminal would end this process too, and look like a failed verification.
            start_new_session=True,
            # The trainer may hold all of a GPU's memory.
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        )

        def verify_there(
            folder: Path,
            images: np.ndarray,
            probabilities: np.ndarray,
            meanwhile: Callable[[], None] = lambda: None,
        ) -> dict[str, Any]:
            np.savez(expected, images=images, probabilities=probabilities)
            with suppress(BrokenPipeError):  # It has ended; why is found out below.
                print(json.dumps([str(folder.resolve()), str(expected)]), file=process.stdin, flush=True)
            meanwhile()
            try:
                out, err = process.communicate(timeout=timeout_seconds)
            except subprocess.TimeoutExpired as error:
                raise VerificationError(
                    f"{folder}: the verification did not end within {timeout_seconds:g} s"
                ) from error
            _refuse_failure(folder, subprocess.CompletedProcess(process.args, process.returncode, out, err))
            return json.loads(out.splitlines()[-1])

        try:
            yield verify_there
        finally:
            with process:  # closes its pipes and waits for it
                process.kill()


def _refuse_failure(folder: Path, done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode == ExitCode.OK:
        return
    if done.returncode == ExitCode.ARTIFACT:
        raise ArtifactError(f"{folder}: {done.stdout.splitlines()[-1]}")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        hint = " (the system kills processes so when memory runs out)" if name == "SIGKILL" else ""
        raise VerificationError(f"{folder}: the verification was ended by {name}{hint}")
    last = (done.stderr.strip() or "no message").splitlines()[-1]
    raise VerificationError(f"{folder}: the verification ended with exit status {done.returncode}: {last}")


class _Call:
    """One signature of a loaded model as a Python function: arrays by name in, arrays by name out."""

    def __init__(self, session: Any, name: str, signature: Any):
        from tensorflow.core.protobuf import config_pb2

        self.name, self._inputs, self._outputs = name, list(signature.inputs), list(signature.outputs)
        expected_inputs, expected_outputs = SIGNATURES[name]
        if set(self._inputs) != expected_inputs or set(self._outputs) != expected_outputs:
            raise ArtifactError(
                f"signature {name} has inputs {sorted(self._inputs)} and outputs {sorted(self._outputs)}"
            )
        # Not `session.run`: it compares shapes in Python, which TensorFlow Serving does not.
        options = config_pb2.CallableOptions(
            feed=[signature.inputs[alias].name for alias in self._inputs],
            fetch=[signature.outputs[alias].name for alias in self._outputs],
        )
        self._run = session._make_callable_from_options(options)

    def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self._outputs, self._run(*(feeds[alias] for alias in self._inputs)), strict=True))

    def in_batches(self, alias: str, values: np.ndarray, size: int) -> dict[str, np.ndarray]:
        batches = [self({alias: values[start : start + size]}) for start in range(0, len(values), size)]
        return {output: np.concatenate([batch[output] for batch in batches]) for output in self._outputs}


def verify(folder: Path, images: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Load `folder` in this process and compare its predictions; see `verify_in_fresh_process`.

    Raises:
        ArtifactError: a signature, a prediction or a warm-up record is not as expected.
    """
    import tensorflow as tf

    files = np.array([tf.io.encode_png(image[..., np.newaxis]).numpy() for image in images], object)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        calls = {name: _Call(session, name, loaded.signature_def[name]) for name in SIGNATURES}
        largest = 0.0
        for size in BATCH_SIZES:
            outputs = calls[SIGNATURE].in_batches(IMAGES, images, size)
            largest = max(largest, _compare(outputs, probabilities, size))
            # A picture must get the prediction of the image that it was normalized to, as far as that is not doubtful.
            of_files = calls[PICTURES].in_batches(ENCODED, files, size)
            of_images = calls[SIGNATURE].in_batches(IMAGES, of_files[NORMALIZED], size)
            doubt = of_files[DOUBT][:, np.newaxis]
            largest = max(largest, _compare(of_files, (1 - doubt) * of_images[PROBABILITIES] + doubt / CLASSES, size))
        _require_problem(calls[PICTURES], files[: min(BATCH_SIZES)])
        for name, inputs in _other_shapes(images, files).items():
            for alias, array in inputs:
                _require_rejection(calls[name], alias, array)
        replayed = _replay_warm_up(folder, calls)
    return {"examples": len(images), "largest_difference": largest, "warm_up_records": replayed}


def _require_problem(pictures: _Call, files: np.ndarray) -> None:
    """Check that a file which is not a picture gets a problem, and that the other files of its request do not notice."""
    mixed = pictures({ENCODED: np.array([*files, b"not a picture"], object)})
    if [bool(problem) for problem in mixed[PROBLEM]] != [False] * len(files) + [True] or mixed[DIGIT][-1] != -1:
        raise ArtifactError(f"with one file that is not a picture {PROBLEM} is {list(mixed[PROBLEM])}")
    alone = pictures({ENCODED: files})
    _compare({alias: array[:-1] for alias, array in mixed.items()}, alone[PROBABILITIES], len(files))


def _other_shapes(images: np.ndarray, files: np.ndarray) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Return inputs of shapes that are not the contract's, which a graph without a check may accept, by signature."""
    height, width = IMAGE_SHAPE
    shapes = [(-1, height, width, 1), (-1, height // 2, 2 * width), (-1, height * width), (-1, width)]
    return {
        SIGNATURE: [(IMAGES, images.reshape(shape)) for shape in shapes],
        PICTURES: [(ENCODED, files[:2].reshape(2, 1)), (ENCODED, files[:1].reshape(()))],
    }


def _require_rejection(call: _Call, alias: str, array: np.ndarray) -> None:
    import tensorflow as tf

    try:
        call({alias: array})
    except tf.errors.InvalidArgumentError:
        return
    raise ArtifactError(f"signature {call.name} accepts {alias} of shape {list(array.shape)}; it must reject them")


def _compare(outputs: dict[str, np.ndarray], probabilities: np.ndarray, size: int) -> float:
    difference = float(np.abs(outputs[PROBABILITIES] - probabilities).max())
    if not difference <= TOLERANCE:
        raise ArtifactError(
            f"at batch size {size} a probability differs from the trainer's by {difference:.3g}; "
            f"expected at most {TOLERANCE:g}"
        )
    if not np.array_equal(outputs[DIGIT], outputs[PROBABILITIES].argmax(axis=1)):
        raise ArtifactError(f"at batch size {size} {DIGIT} is not the most probable digit")
    if not np.array_equal(outputs[CONFIDENCE], outputs[PROBABILITIES].max(axis=1)):
        raise ArtifactError(f"at batch size {size} {CONFIDENCE} is not the highest probability")
    return difference


def _replay_warm_up(folder: Path, calls: dict[str, _Call]) -> int:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    sizes: dict[str, tuple[int, ...]] = {}
    for record in tf.compat.v1.io.tf_record_iterator(str(folder / "assets.extra" / WARM_UP_FILE)):
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        name = request.model_spec.signature_name
        if name not in calls or set(request.inputs) != SIGNATURES[name][0]:
            raise ArtifactError(f"a warm-up record is not a request of this model: {name} of {sorted(request.inputs)}")
        outputs = calls[name]({alias: tf.make_ndarray(proto) for alias, proto in request.inputs.items()})
        sizes[name] = (*sizes.get(name, ()), len(outputs[DIGIT]))
    if sizes != WARM_UP_BATCH_SIZES:
        raise ArtifactError(f"warm-up batch sizes are {sizes}; expected {WARM_UP_BATCH_SIZES}")
    return sum(map(len, sizes.values()))


def main() -> int:
    """Print the measured values, or the reason of the failure; return the exit status."""
    quiet_tensorflow.install(hidden=("keras",))  # which takes half of the import, and which TensorFlow Serving has not
    try:
        import tensorflow as tf  # noqa: F401

        if not (line := sys.stdin.readline()):
            return ExitCode.STOPPED  # The process that started this one has ended, or has nothing to verify.
        folder, expected = json.loads(line)
        with np.load(expected) as arrays:
            measured = verify(Path(folder), arrays["images"], arrays["probabilities"])
        print(json.dumps(measured, allow_nan=False))
    except MemoryError:
        raise  # says nothing about the files
    except Exception as error:
        # Any failure to load or predict here would happen in TensorFlow Serving too, so none is a bug of this process.
        print(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return ExitCode.ARTIFACT
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
