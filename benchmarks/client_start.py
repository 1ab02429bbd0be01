"""What it costs to start a client: a cold `predict`, beside importing TensorFlow Serving's own API package.

    $ python benchmarks/client_start.py
    cold start                           wall s  peak MB
    python -m serving predict digit.png    0.44       57
    import tensorflow_serving.apis         9.22      687

Each round is a fresh process. The server is a stand-in that answers at once (testbed/stand_in.py), so that the figures
are the client's alone; `--target` names a real one. This process imports nothing heavy before it measures: a child's peak
memory is never reported below its parent's.
"""

import argparse
import base64
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

IMPORTS = "from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc"

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAACgAAAAoAQAAAACkhYXAAAAAFElEQVR42mP4DwIMuMnHQ5DE4yMA3sXD8UAbLFAAAAAASUVORK5CYII="
)
"""A black stroke on white, 40 x 40."""


def main() -> None:
    """Parse the arguments, measure in turns, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", help="HOST:PORT of a running server (default: a stand-in that answers at once)")
    parser.add_argument("--rounds", type=int, default=5, help="cold starts of each (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        picture = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "digit.png"
        picture.write_bytes(PNG)
        target = args.target or stack.enter_context(_stand_in())
        commands = {
            "python -m serving predict digit.png": ["-m", "serving", "predict", str(picture), "--target", target],
            "import tensorflow_serving.apis": ["-c", IMPORTS],
        }
        results = measure(commands, args.rounds)
    _print_table(results)
    if args.json:
        args.json.write_text(json.dumps({"cpus": os.cpu_count(), "rounds": args.rounds, "results": results}, indent=2))


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, dict[str, float]]:
    """Run the commands in turns, so that a slow moment of the machine hits all of them; the median of each figure.

    A first round, which fills the file cache, is not counted. CalledProcessError if a command fails.
    """
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for round_number in range(rounds + 1):
        for name, arguments in commands.items():
            figures = run_cold([sys.executable, *arguments])
            if round_number:
                measured[name].append(figures)
    return {
        name: {
            "wall_seconds": statistics.median(wall for wall, _ in figures),
            "peak_megabytes": statistics.median(peak for _, peak in figures),
        }
        for name, figures in measured.items()
    }


def run_cold(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes (10^6 bytes) of one process, from its start to its end."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    errors = process.stderr.read() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=errors)
    return wall, usage.ru_maxrss * 1024 / 1e6


@contextlib.contextmanager
def _stand_in() -> Iterator[str]:
    command = [sys.executable, "-m", "testbed.stand_in"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        try:
            yield f"127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()


def _print_table(results: dict[str, dict[str, float]]) -> None:
    width = max(map(len, results))
    print(f"{'cold start':{width}}  wall s  peak MB")
    for name, figures in results.items():
        print(f"{name:{width}}  {figures['wall_seconds']:6.2f}  {figures['peak_megabytes']:7.0f}")


if __name__ == "__main__":
    main()
