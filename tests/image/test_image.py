"""The images train, stop, resume, serve, send requests and show TensorBoard, without root and with a read-only root."""

import json
import re
import signal

from tests.image.conftest import REPOSITORY, Engine
from tests.waiting import wait_until

DIGITS = REPOSITORY / "k8s" / "components" / "smoke" / "digits"


def wait_for(engine: Engine, container: str, text: str) -> None:
    """Wait until the container's log contains the text; fail if the container ends before."""

    def printed() -> bool:
        running = engine("inspect", "--format={{.State.Running}}", container).stdout.strip() == "true"
        done = engine("logs", container)
        log = done.stdout + done.stderr
        assert text in log or running, f"the container ended before it printed {text!r}: {log[-3000:]}"
        return text in log

    wait_until(printed, 180, pause_seconds=0.5)


def handles_sigterm(engine: Engine, container: str) -> bool:
    """Whether the container's first process has a handler for SIGTERM."""
    status = engine("exec", container, "cat", "/proc/1/status").stdout
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1)


def test_the_quickstart_trains_and_publishes(engine: Engine, trained: str) -> None:
    result = json.loads(engine.read(trained, "/artifacts/runs/first/result.json"))
    assert result["exit_code"] == 0
    code = "import os; print({os.stat(p).st_uid for p, *_ in os.walk('/artifacts')}, os.getuid())"
    options = ("--entrypoint=python", f"--volume={trained}:/artifacts:ro")
    assert engine.run("trainer", "-c", code, options=options).split() == ["{10001}", "10001"]


def test_only_the_volume_and_tmp_are_writable(engine: Engine, trained: str) -> None:
    code = (
        "import os\n"
        "for folder in ('/', '/app', '/usr/local/lib', '/etc', '/artifacts', '/tmp'):\n"
        "    try: open(f'{folder}/x', 'w').close(); os.remove(f'{folder}/x'); print(folder)\n"
        "    except OSError: pass\n"
    )
    options = ("--entrypoint=python", f"--volume={trained}:/artifacts")
    assert engine.run("trainer", "-c", code, options=options).split() == ["/artifacts", "/tmp"]


def test_a_stopped_run_exits_75_and_the_next_start_resumes_it(engine: Engine) -> None:
    volume = engine.new_volume()
    options = (f"--volume={volume}:/artifacts",)
    command = (
        "trainer",
        "train",
        "--preset=quickstart",
        "--epochs=60",
        "--artifacts=/artifacts",
        "--run=stopped",
        "--log-format=json",
    )
    first = engine.start("trainer", *command, options=options)
    wait_for(engine, first, '"kind": "validation", "step": 1')
    engine("stop", "--time=120", first)
    assert engine.wait(first) == 75
    result = json.loads(engine.read(volume, "/artifacts/runs/stopped/result.json"))
    assert result["exit_code"] == 75
    stopped_at = last_step(engine, volume)
    again = engine.start("trainer", *command, options=options)
    assert engine.wait(again) == 0, engine("logs", again).stderr
    log = engine("logs", again)
    steps = [int(step) for step in re.findall(r'"kind": "validation", "step": (\d+)', log.stdout + log.stderr)]
    assert min(steps) >= stopped_at > 0, "the second start repeated steps of the first"


def last_step(engine: Engine, volume: str) -> int:
    rows = engine.read(volume, "/artifacts/runs/stopped/metrics.jsonl").split("\n")
    return max(json.loads(row)["step"] for row in rows if row)


def test_a_stopped_wait_ends_at_once(engine: Engine) -> None:
    """Process 1 without a handler ignores SIGTERM, and would be killed after the grace period."""
    container = engine.start("client", "serving", "wait", "--target=missing:1", "--timeout=600")
    wait_until(lambda: handles_sigterm(engine, container), 60, pause_seconds=0.5)
    engine("stop", "--time=30", container)
    assert engine.wait(container) == 130


def test_a_client_in_one_container_gets_predictions_from_a_server_in_another(engine: Engine, trained: str) -> None:
    options = (f"--volume={trained}:/artifacts:ro", "--network-alias=serving")
    command = ("serving", "serve", "/artifacts/models/digits", "--host=0.0.0.0", "--port=8500")
    server = engine.start("trainer", *command, options=options)
    version = engine.run("client", "serving", "wait", "--target=serving:8500", "--timeout=120").strip()
    files = [f"/digits/{digit}.png" for digit in range(10)]
    answers = engine.run(
        "client",
        "serving",
        "predict",
        "--target=serving:8500",
        "--json",
        *files,
        options=(f"--volume={DIGITS}:/digits:ro",),
    )
    assert [(answer["digit"], str(answer["version"])) for answer in json.loads(answers)] == [
        (n, version) for n in range(10)
    ]
    engine("stop", "--time=30", server)
    assert engine.wait(server) == 0


def test_tensorboard_runs_from_the_trainer_image(engine: Engine, trained: str) -> None:
    command = ("tensorboard.main", "--logdir=/artifacts/runs", "--host=0.0.0.0", "--port=6006")
    board = engine.start("trainer", *command, options=(f"--volume={trained}:/artifacts:ro", "--network-alias=board"))
    wait_for(engine, board, "http://0.0.0.0:6006")
    code = (
        "from urllib.request import urlopen\n"
        "print(urlopen('http://board:6006/data/environment').status, urlopen('http://board:6006/data/runs').read().decode())"
    )
    assert "first" in engine.run("client", "-c", code, options=("--entrypoint=python",))
    engine("stop", "--time=30", board)


def test_the_client_image_has_no_tensorflow_and_the_trainer_image_no_data(engine: Engine) -> None:
    code = "import importlib.util as u; print([m for m in ('tensorflow', 'keras', 'trainer') if u.find_spec(m)])"
    assert engine.run("client", "-c", code, options=("--entrypoint=python",)).strip() == "[]"
    code = (
        "import os\n"
        "places = [p for p, _, _ in os.walk('/') if not p.startswith(('/proc', '/sys'))]\n"
        "print([f for p in places for f in os.listdir(p) if 'idx3' in f])"
    )
    assert engine.run("trainer", "-c", code, options=("--entrypoint=python",)).strip() == "[]"
