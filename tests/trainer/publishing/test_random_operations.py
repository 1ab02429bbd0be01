"""The guarantee that publishers, rollbacks and runs may share a models folder, and may be killed at any instant."""

import collections
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.publisher import operate
from trainer.errors import ExitCode
from trainer.publishing.export import read_metadata
from trainer.publishing.versions import RETIRED_SUFFIX, live_versions, version_folder

OPERATIONS = int(os.environ.get("RANDOM_OPERATIONS", 18))
"""200 in `make soak`."""
KINDS = ("publish", "publish", "publish and keep 3", "refused", "refused", "rollback", "rollback one", "train")
EXPECTED = {
    "publish": {ExitCode.OK},
    "publish and keep 3": {ExitCode.OK},
    "refused": {ExitCode.GATE},
    "rollback": {ExitCode.OK, ExitCode.USAGE},
    "rollback one": {ExitCode.OK, ExitCode.USAGE},
    "train": {ExitCode.OK},
}


class Watch:
    """Looks at the models folder as often as it can, as a server does, and notes what must never be."""

    def __init__(self, model_dir: Path, image: np.ndarray):
        self.faults: list[str] = []
        self.loaded: set[str] = set()
        self._model_dir, self._image = model_dir, image
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        before: set[int] = set()
        while not self._stop.is_set():
            names = {child.name for child in self._model_dir.iterdir()}
            live = {int(name) for name in names if re.fullmatch("[0-9]+", name)}
            retired = {int(name.removesuffix(RETIRED_SUFFIX)) for name in names if name.endswith(RETIRED_SUFFIX)}
            for version in before - live - retired:
                newer = [number for number in live | retired if number > version]
                if len(newer) < 2:
                    self.faults.append(f"{version} was removed although only {newer} were newer")
            before = live
            for name in sorted(map(str, live - set(map(int, self.loaded)))):
                self._load(self._model_dir / name)
            time.sleep(0.005)

    def _load(self, folder: Path) -> None:
        import tensorflow as tf

        try:
            metadata = json.loads((folder / "assets.extra" / "digits.json").read_text())
            if not metadata.get("good", True):
                self.faults.append(f"{folder.name} was refused by the gate and is live")
            with tf.compat.v1.Session(graph=tf.Graph()) as session:
                signature = tf.compat.v1.saved_model.load(session, ["serve"], str(folder)).signature_def[
                    "serving_default"
                ]
                feeds = {signature.inputs["images"].name: self._image[None]}
                assert np.isfinite(session.run(signature.outputs["probabilities"].name, feeds)).all()
            self.loaded.add(folder.name)
        except Exception as error:
            if folder.is_dir():  # else it was retired or removed in the meantime
                self.faults.append(f"{folder.name} is live and cannot be loaded: {error}")


@pytest.mark.slow
def test_no_order_of_operations_and_kills_shows_an_incomplete_a_refused_or_a_missing_version(
    tmp_path: Path, trained
) -> None:
    weights, model_dir = tmp_path / "model.weights.h5", tmp_path / "models" / "digits"
    trained.model.save_weights(weights)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.trainer.publisher"])
    numbers, outcomes, faults = iter(range(OPERATIONS)), collections.Counter(), []
    lock, processes = threading.Lock(), threading.Lock()

    def run(kind: str, number: int, seconds: float | None) -> int | None:
        """The exit status of one operation; None if it was killed after `seconds`."""
        process = context.Process(target=operate, args=(kind, number, weights, tmp_path), daemon=True)
        # `start` looks after all processes. At the same time as `join` it would take the exit status away: 255.
        with processes:
            process.start()
        has_ended = multiprocessing.connection.wait([process.sentinel], seconds)
        with processes:
            process.kill()
            process.join()
            return process.exitcode if has_ended else None

    def work(seed: int) -> None:
        generator = random.Random(seed)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            kind = generator.choice(KINDS)
            seconds = generator.uniform(0.5, 8) if generator.random() < 0.35 else None
            status = run(kind, number, seconds)
            with lock:
                outcomes[f"{kind}: {'killed' if status is None else status}"] += 1
                if status is not None and status not in EXPECTED[kind]:
                    faults.append(f"operation {number}, {kind}, ended with {status}")

    assert run("publish", OPERATIONS, None) == ExitCode.OK
    with Watch(model_dir, trained.test.images[0]) as watch:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, range(3)))
        assert run("publish", OPERATIONS + 1, None) == ExitCode.OK, "the next publisher works after every kill"
    print(json.dumps({"operations": outcomes, "versions loaded": len(watch.loaded)}))
    assert watch.faults == []
    assert faults == []
    assert sum(outcomes.values()) == OPERATIONS
    newest = version_folder(model_dir, live_versions(model_dir)[-1])
    assert read_metadata(newest)["good"] is True
    assert newest.name in watch.loaded or len(watch.loaded) > 0
    assert not [child.name for child in model_dir.iterdir() if child.name.startswith((".staging", ".removed"))]
