"""Two workers in two containers, with the variables and names of the manifests."""

import json
import shutil

import pytest

from tests.image.conftest import Engine
from tests.k8s.manifests import environment, named, pods, render
from trainer.errors import ExitCode

pytestmark = pytest.mark.skipif(
    not shutil.which("kubectl"), reason="kubectl is not installed; it renders the manifests"
)


def start_workers(engine: Engine, volume: str, indices: range, *flags: str) -> list[str]:
    """Start these workers of the multi-worker Job, with the quickstart preset, which takes seconds."""
    [pod] = pods([named(render("base+multi-worker"), "Job", "train")])
    variables = environment(pod, pod.spec["containers"][0])
    command = ("trainer", "train", "--preset=quickstart", "--artifacts=/artifacts", f"--run={variables['RUN']}", *flags)
    workers = []
    for index in indices:
        given = {**variables, "JOB_COMPLETION_INDEX": str(index)}
        # In a cluster the headless Service resolves this name: <job>-<index>.<service>.
        name = f"{variables['DIGITS_JOB']}-{index}.{variables['DIGITS_SERVICE']}"
        options = (f"--volume={volume}:/artifacts", f"--network-alias={name}")
        settings = tuple(f"--env={name}={value}" for name, value in given.items())
        workers.append(engine.start("trainer", *command, options=options + settings))
    return workers


def test_two_workers_in_two_containers_train_one_model(engine: Engine) -> None:
    volume = engine.new_volume()
    workers = start_workers(engine, volume, range(2))
    statuses = [engine.wait(worker) for worker in workers]
    assert statuses == [0, 0], [engine("logs", worker).stderr[-2000:] for worker in workers]
    result = json.loads(engine.read(volume, "/artifacts/runs/train/result.json"))
    assert (result["exit_code"], result["status"]) == (0, "ok")
    assert result["published"]["folder"].startswith("/artifacts/models/digits/")


def test_a_worker_without_its_peers_exits_with_69_and_names_them(engine: Engine) -> None:
    [worker] = start_workers(engine, engine.new_volume(), range(1), "--peer-timeout-seconds=5")
    assert engine.wait(worker) == ExitCode.PEERS
    assert "train-1.workers:2222" in engine("logs", worker).stderr
