"""Where the seconds of a complete run go, from the start of `train` until the version is published.

    $ python -m benchmarks.complete_run --data-dir mnist/
    $ python -m benchmarks.complete_run --data-dir mnist/ --checkout ../before --checkout .

prints the machine and, for each checkout, a row of medians over the rounds:

                      published  training  the rest  Loading TensorFlow  Loading idx  Evaluating  ...     CPU
    .                       ...       ...       ...                 ...          ...         ...  ...     ...

Each run is a process of its own, which publishes into an empty folder, whatever its accuracy. "training" is the time
of the training steps, with their compilation. "the rest" is what a run takes besides until its version is published;
the named phases are parts of it. "CPU" is the processor time of the process and its children until their end. Several
checkouts are measured in turns, with the packages of this Python. A first run of each is not measured: it fills
caches. The aims: published after 18 s, and 10 s for the rest.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from testbed.report import argument_parser, machine, write_json

NAMES = ("Loading TensorFlow", "Loading idx", "Evaluating", "Exporting", "Verifying")
"""The first words of the phases, as `train` prints them."""


def main() -> None:
    """Run each checkout in each round, print the table, write the JSON."""
    parser = argument_parser(__doc__, rounds=3)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of IDX files")
    parser.add_argument("--preset", default="fast", help="what to train (default: %(default)s)")
    parser.add_argument(
        "--checkout", type=Path, action="append", metavar="DIR", help="a checkout of this project (default: this one)"
    )
    parser.add_argument("--validation-size", type=int, default=5000, help="as of `train` (default: %(default)s)")
    args = parser.parse_args()
    checkouts = args.checkout or [Path(__file__).parents[1]]
    where = machine()
    print(f"{where}\n")
    runs: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
    for checkout in checkouts:
        run(checkout, args.preset, args.data_dir, args.validation_size)
    for turn in range(args.rounds):
        for checkout in checkouts[:: 1 if turn % 2 else -1]:
            runs[checkout].append(run(checkout, args.preset, args.data_dir, args.validation_size))
    width = max(len(str(checkout)) for checkout in checkouts)
    first, *_ = runs.values()
    print(" " * width, *(f"  {name:>9}" for name in first[0]), sep="")
    for checkout, results in runs.items():
        medians = [statistics.median(result[name] for result in results) for name in first[0]]
        cells = (f"  {median:>{max(9, len(name))}.1f}" for name, median in zip(first[0], medians, strict=True))
        print(f"{checkout!s:{width}}", *cells, sep="")
    write_json(
        args.json, machine=where, preset=args.preset, seconds={str(name): results for name, results in runs.items()}
    )


def run(checkout: Path, preset: str, data_dir: Path, validation_size: int) -> dict[str, float]:
    """Train and publish with the code of a checkout; return the seconds of each part."""
    command = [sys.executable, "-m", "trainer", "train", "--preset", preset, "--run", "r", "--log-format", "json"]
    command += ["--dataset", "idx", "--data-dir", str(data_dir.resolve()), "--min-accuracy", "0"]
    command += ["--validation-size", str(validation_size)]
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    with tempfile.TemporaryDirectory() as artifacts:
        command += ["--artifacts", artifacts]
        used, started = _cpu_seconds(), time.time()
        done = subprocess.run(
            command,
            cwd=checkout,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{checkout}: train ended with {done.returncode}: {done.stderr.splitlines()[-1]}")
        training = json.loads((Path(artifacts) / "runs" / "r" / "result.json").read_text())["training"]["seconds"]
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    phases = [line for line in lines if line.get("kind") == "phase"]
    seconds = {name: sum(phase["seconds"] for phase in phases if phase["name"].startswith(name)) for name in NAMES}
    (verified,) = (phase["time"] for phase in phases if phase["name"].startswith(NAMES[-1]))
    published = verified - started
    return {
        "published": published,
        "training": training,
        "the rest": published - training,
        **seconds,
        "CPU": _cpu_seconds() - used,
    }


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
