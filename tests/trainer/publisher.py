"""Processes for test_poller: a publisher that can be killed, and a reader that polls as TensorFlow Serving does.

They are forked from a server that has imported TensorFlow, which saves ten seconds for each publisher. Each publisher
still exports for itself. The verification in a fresh process has tests of its own.
"""

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from serving.contract import DIGIT, IMAGES, SIGNATURE
from trainer.data.load import load_splits
from trainer.evaluation.metrics import compile_predict, evaluate
from trainer.publishing.gate import Gate
from trainer.publishing.publish import publish
from trainer.publishing.verify_export import verify
from trainer.training.model import build_model


def publish_once(weights: Path, model_dir: Path, started: Any) -> None:
    """Publish the network in `weights`; `started` is set when the publishing itself begins."""
    test = load_splits("optdigits", Path("unused"), 180).test
    model = build_model("cnn", width=0.5)
    model.load_weights(weights)
    evaluation = evaluate(compile_predict(model), test)
    started.set()
    gate = Gate(min_accuracy=0.5, tolerance=1.0)
    publish(model, evaluation, test, model_dir=model_dir, gate=gate, now=datetime.now(UTC), metadata={}, verify=verify)


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
