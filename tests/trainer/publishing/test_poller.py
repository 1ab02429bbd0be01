"""The guarantee that TensorFlow Serving never sees an incomplete version, whenever a publisher is killed."""

import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest

from tests.trainer.publisher import poll, publish_once
from trainer.publishing.versions import live_versions

PUBLISHES = int(os.environ.get("POLLED_PUBLISHES", 5))
KILLED_PUBLISHES = int(os.environ.get("POLLED_KILLS", 8))
"""30 each in `make soak`."""


def drain(queue) -> list[str]:
    items = []
    while not queue.empty():
        items.append(queue.get())
    return items


@pytest.mark.slow
def test_a_reader_never_sees_an_incomplete_version_while_publishers_finish_or_are_killed(
    tmp_path: Path, trained
) -> None:
    weights, model_dir = tmp_path / "model.weights.h5", tmp_path / "models" / "digits"
    trained.model.save_weights(weights)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.trainer.publisher"])
    stop, answered, failures = context.Event(), context.Queue(), context.Queue()
    image, digit = trained.test.images[0], int(trained.evaluation.digits[0])
    reader = context.Process(target=poll, args=(model_dir, image, digit, stop, answered, failures), daemon=True)
    reader.start()

    def start():
        started = context.Event()
        process = context.Process(target=publish_once, args=(weights, model_dir, started), daemon=True)
        process.start()
        assert started.wait(120)
        return process

    generator = random.Random(0)
    durations = []
    for _ in range(PUBLISHES):
        process, began = start(), time.monotonic()
        process.join(300)
        assert process.exitcode == 0
        durations.append(time.monotonic() - began)
    published = live_versions(model_dir)
    assert len(published) == PUBLISHES

    killed = 0
    longest = min(durations)  # On a machine whose load changes, others may end before they are killed.
    for _ in range(KILLED_PUBLISHES):
        process = start()
        process.join(generator.uniform(0, longest))
        killed += process.exitcode is None
        process.kill()
        process.join()
    process = start()
    process.join(300)
    assert process.exitcode == 0, "the next publisher works after every kill"
    assert killed >= KILLED_PUBLISHES // 2

    stop.set()
    reader.join(60)
    assert drain(failures) == []
    answers = drain(answered)
    assert set(map(int, answers)) == set(live_versions(model_dir))
    assert len(live_versions(model_dir)) > PUBLISHES
    assert not [child.name for child in model_dir.iterdir() if child.name.startswith(".staging")]
