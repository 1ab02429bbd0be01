"""Processes for tests of publishing: publishers that can be killed, and a reader that polls as TensorFlow Serving does.

They are forked from a server that has imported TensorFlow, which saves ten seconds for each publisher. Each publisher
still exports for itself. The verification in a fresh process has tests of its own.
"""

import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from serving.contract import DIGIT, IMAGE_SHAPE, IMAGES, SIGNATURE
from trainer.cli import main
from trainer.data.load import load_splits
from trainer.errors import ExitCode, RunError
from trainer.evaluation.metrics import evaluate
from trainer.evaluation.predict import compile_predict
from trainer.pictures.decode import decode
from trainer.pictures.normalize import Normalized
from trainer.pictures.presence import TRAITS
from trainer.publishing import export, verify_export
from trainer.publishing.gate import Gate
from trainer.publishing.publish import publish
from trainer.publishing.verify_export import verify
from trainer.publishing.versions import live_versions, roll_back
from trainer.training.model import build_model


def take_as_prepared(encoded: Any) -> Any:
    """Take the place of `normalize` in exports of tests: loading its graph takes seconds."""
    import tensorflow as tf

    def one(content: Any) -> tuple[Any, Any]:
        pixels, problem = decode(content)
        return tf.image.resize_with_crop_or_pad(pixels[..., :1], *IMAGE_SHAPE)[..., 0], problem

    specs = tf.TensorSpec(IMAGE_SHAPE, tf.uint8), tf.TensorSpec([], tf.string)
    images, problem = tf.map_fn(one, encoded, fn_output_signature=specs)
    found = tf.cast(tf.reduce_any(images > 0, [1, 2]), tf.int64)
    nothing = tf.zeros([tf.size(problem)])
    box, traits = (tf.repeat(nothing[:, tf.newaxis], size, axis=1) for size in (4, TRAITS))
    return Normalized(images, problem, found, box, traits, doubt=nothing)


def publish_once(weights: Path, model_dir: Path, started: Any) -> None:
    """Publish the network in `weights`; `started` is set when the publishing itself begins."""
    test = load_splits("optdigits", Path("unused"), 180).test
    model = build_model("cnn", width=0.5)
    model.load_weights(weights)
    evaluation = evaluate(compile_predict(model), test)
    export.normalize = take_as_prepared
    started.set()
    gate = Gate(min_accuracy=0.5, tolerance=1.0)
    publish(model, evaluation, test, model_dir=model_dir, gate=gate, now=datetime.now(UTC), metadata={}, verify=verify)


@contextmanager
def _here() -> Iterator[Callable[..., dict[str, Any]]]:
    """Take the place of `fresh_process`: verify in this process."""
    yield lambda *arguments, **_: verify(*arguments)


def operate(kind: str, number: int, weights: Path, artifacts: Path) -> None:
    """One operation of test_random_operations; the process ends with the exit status of the command line."""
    export.normalize = take_as_prepared
    verify_export.fresh_process = _here
    try:
        sys.exit(_operate(kind, number, weights, artifacts) or ExitCode.OK)
    except RunError as error:
        sys.exit(error.exit_code)


def _operate(kind: str, number: int, weights: Path, artifacts: Path) -> int | None:
    model_dir, generator = artifacts / "models" / "digits", random.Random(number)
    if kind == "train":
        network = ["--model", "mlp", "--width", "0.25", "--epochs", "0.5", "--pen-weight", "0", "--run", f"r{number}"]
        gate = ["--min-accuracy", "0", "--tolerance", "1", "--significance", "0", "--keep-versions", "4"]
        return main(["train", "--artifacts", str(artifacts), *network, *gate])
    if kind.startswith("rollback"):
        version = generator.choice(live_versions(model_dir)) if kind == "rollback one" else None
        roll_back(model_dir, version)
        return None
    test = load_splits("optdigits", Path("unused"), 180).test
    model = build_model("cnn", width=0.5)
    model.load_weights(weights)
    if kind == "refused":
        model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    minimum = generator.choice([0.0, 0.5])  # above it, the comparison with the live versions refuses
    publish(
        model,
        evaluate(compile_predict(model), test),
        test,
        model_dir=model_dir,
        gate=Gate(min_accuracy=minimum, tolerance=0.05),
        now=datetime.now(UTC),
        metadata={"good": kind != "refused"},
        verify=verify,
        keep_versions=3 if kind == "publish and keep 3" else 0,
    )
    return None


def poll(model_dir: Path, image: np.ndarray, digit: int, stop: Any, answered: Any, failures: Any) -> None:
    """Load every numeric child as soon as it appears and predict one digit with it, until `stop` is set."""
    import tensorflow as tf

    seen: set[str] = set()
    while not stop.is_set():
        for child in model_dir.iterdir() if model_dir.is_dir() else ():
            if not re.fullmatch("[0-9]+", child.name) or child.name in seen:
                continue
            seen.add(child.name)
            try:
                with tf.compat.v1.Session(graph=tf.Graph()) as session:
                    signature = tf.compat.v1.saved_model.load(session, ["serve"], str(child)).signature_def[SIGNATURE]
                    answer = session.run(signature.outputs[DIGIT].name, {signature.inputs[IMAGES].name: image[None]})
                missing = [
                    name
                    for name in ("tf_serving_warmup_requests", "digits.json")
                    if not (child / "assets.extra" / name).is_file()
                ]
                if answer[0] != digit or missing:
                    failures.put(f"{child.name}: answered {answer}, missing {missing}")
                answered.put(child.name)
            except Exception as error:
                failures.put(f"{child.name}: {error}")
        time.sleep(0.01)
