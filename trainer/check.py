"""The check of an exported model in a fresh process, through the v1 Session path that TensorFlow Serving loads it by.

    python -m trainer.check FOLDER EXPECTED.npz

prints one JSON object, and exits with 0 if the answers are the trainer's, with 6 if not. It shares no state with the
process that exported the model, which is the point: what works there may still be missing from the files.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from serving.contract import CONFIDENCE, DIGIT, IMAGES, PROBABILITIES, SIGNATURE
from trainer.exit_codes import ExitCode, RunError

TOLERANCE = 1e-5
"""Largest difference of a probability between the trainer and the exported files."""

BATCH_SIZES = (256, 7)
"""Batch sizes at which the answers are compared; 7 leaves a remainder."""

TIMEOUT_SECONDS = 600


class ArtifactError(RunError):
    """The exported files do not answer as the trained model does."""

    exit_code = ExitCode.ARTIFACT


def check_in_fresh_process(folder: Path, images: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Load `folder` in a new Python process and compare its answers.

    Args:
        folder: the SavedModel.
        images: uint8 [N, 28, 28].
        probabilities: the trainer's answers for them, float32 [N, 10].

    Returns:
        What the check measured.

    Raises:
        ArtifactError: the files do not load, do not answer, or answer something else.
    """
    with tempfile.TemporaryDirectory() as scratch:
        expected = Path(scratch) / "expected.npz"
        np.savez(expected, images=images, probabilities=probabilities)
        command = [sys.executable, "-m", "trainer.check", str(folder.resolve()), str(expected)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                cwd=Path(__file__).parent.parent,
                # A terminal's Ctrl-C would reach the child too, and look like files that fail their check.
                start_new_session=True,
                # This process may hold all of a GPU's memory.
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
            )
        except subprocess.TimeoutExpired as error:
            raise ArtifactError(f"{folder}: the check did not end within {TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        reason = (done.stdout.strip() or done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise ArtifactError(f"{folder}: {reason}")
    return json.loads(done.stdout.splitlines()[-1])


def check(folder: Path, images: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """The check itself, in this process.

    Raises:
        ArtifactError: as above.
    """
    import tensorflow as tf

    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        signature = loaded.signature_def[SIGNATURE]
        inputs = {name: info.name for name, info in signature.inputs.items()}
        outputs = {name: info.name for name, info in signature.outputs.items()}
        if set(inputs) != {IMAGES} or set(outputs) != {PROBABILITIES, DIGIT, CONFIDENCE}:
            raise ArtifactError(f"signature {SIGNATURE} has inputs {sorted(inputs)} and outputs {sorted(outputs)}")
        largest = 0.0
        for size in BATCH_SIZES:
            batches = [
                session.run(outputs, {inputs[IMAGES]: images[start : start + size]})
                for start in range(0, len(images), size)
            ]
            answers = {name: np.concatenate([batch[name] for batch in batches]) for name in outputs}
            largest = max(largest, _compare(answers, probabilities, size))
        replayed = _replay_warm_up(folder, session, inputs, outputs)
    return {"examples": len(images), "largest_difference": largest, "warm_up_records": replayed}


def _compare(answers: dict[str, np.ndarray], probabilities: np.ndarray, size: int) -> float:
    difference = float(np.abs(answers[PROBABILITIES] - probabilities).max())
    if not difference <= TOLERANCE:
        raise ArtifactError(
            f"at batch size {size} a probability differs from the trainer's by {difference:.3g}; "
            f"expected at most {TOLERANCE:g}"
        )
    if not np.array_equal(answers[DIGIT], answers[PROBABILITIES].argmax(axis=1)):
        raise ArtifactError(f"at batch size {size} {DIGIT} is not the most probable one")
    if not np.array_equal(answers[CONFIDENCE], answers[PROBABILITIES].max(axis=1)):
        raise ArtifactError(f"at batch size {size} {CONFIDENCE} is not the highest probability")
    return difference


def _replay_warm_up(folder: Path, session: Any, inputs: dict[str, str], outputs: dict[str, str]) -> int:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    from trainer.export import WARM_UP_BATCH_SIZES, WARM_UP_FILE

    sizes: list[int] = []
    for record in tf.compat.v1.io.tf_record_iterator(str(folder / "assets.extra" / WARM_UP_FILE)):
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        if request.model_spec.signature_name != SIGNATURE or set(request.inputs) != set(inputs):
            raise ArtifactError(f"warm-up record {len(sizes)} is not a request for {SIGNATURE}")
        feed = {inputs[name]: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        sizes.append(len(session.run(outputs, feed)[DIGIT]))
    if tuple(sizes) != WARM_UP_BATCH_SIZES:
        raise ArtifactError(f"warm-up batch sizes are {sizes}; expected {list(WARM_UP_BATCH_SIZES)}")
    return len(sizes)


def main(arguments: list[str]) -> int:
    """The fresh process: the measured values on standard output, or the reason of the refusal."""
    folder, expected = arguments
    try:
        with np.load(expected) as arrays:
            print(json.dumps(check(Path(folder), arrays["images"], arrays["probabilities"])))
    except Exception as error:
        # Whatever goes wrong here, TensorFlow Serving would meet it too: none of it is a bug of this process alone.
        print(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return ExitCode.ARTIFACT
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
