"""Training time and memory against the number of training examples.

    $ python -m benchmarks.data_size --data-dir mnist/

prints the machine, and

      examples  seconds per million examples     ratio  memory beyond the data
        60,000                           ...      1.00                  ... MB
       240,000                           ...       ...                  ... MB
       960,000                           ...       ...                  ... MB

Each case trains the `sprint` preset on copies of the training split, in a process of its own. All take as many steps:
those of one epoch of the second size, because a machine may be faster in its first seconds. The seconds are those of the
compiled steps after the first call, which also compiles. Memory is the process's highest resident size less the bytes of
the images and labels. Medians over the rounds, in turns. The aims: time within 5 % of linear, and memory beyond the data
that does not grow.
"""

import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from testbed.report import argument_parser, machine, write_json
from testbed.turns import training_split
from trainer.config import resolve
from trainer.data.split import Split, Splits, aligned

COPIES = (1, 4, 16)


def main() -> None:
    """Run each size in each round, print the table, write the JSON."""
    parser = argument_parser(__doc__, rounds=3)
    parser.add_argument("--data-dir", type=Path, help="folder of IDX files (default: random images of MNIST's size)")
    parser.add_argument("--copies", type=int, help="train once on that many copies and print the figures as JSON")
    args = parser.parse_args()
    if args.copies:
        print(json.dumps(train_on(args.copies, args.data_dir)))
        return
    where = machine()
    print(f"{where}\n\n  examples  seconds per million examples     ratio  memory beyond the data")
    runs: dict[int, list[dict[str, float]]] = {copies: [] for copies in COPIES}
    for turn in range(args.rounds):
        for copies in COPIES[:: 1 if turn % 2 else -1]:
            command = [sys.executable, "-m", "benchmarks.data_size", "--copies", str(copies)]
            command += ["--data-dir", str(args.data_dir)] if args.data_dir else []
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            runs[copies].append(json.loads(done.stdout.splitlines()[-1]))
    table = {
        copies: {name: statistics.median(run[name] for run in results) for name in results[0]}
        for copies, results in runs.items()
    }
    for row in table.values():
        row["ratio"] = row["seconds_per_million"] / table[COPIES[0]]["seconds_per_million"]
        print(
            f"{row['examples']:10,.0f}  {row['seconds_per_million']:28.1f}  {row['ratio']:8.2f}  "
            f"{row['bytes_beyond_data'] / 1e6:19,.0f} MB"
        )
    write_json(args.json, machine=where, table=table, runs=runs)


def train_on(copies: int, data_dir: Path | None) -> dict[str, float]:
    """Train on that many copies of the training split."""
    from trainer.runs.tracking import Tracker
    from trainer.training.distribute import choose_devices
    from trainer.training.loop import Hooks, train

    split = training_split(data_dir)
    images = aligned(np.empty((copies * len(split), *split.images.shape[1:]), np.uint8))  # as `load_splits` gives them
    images.reshape(copies, *split.images.shape)[:] = split.images
    examples = Split(images, np.tile(split.labels, copies))
    few = Split(split.images[:500], split.labels[:500])
    data_bytes = examples.images.nbytes + examples.labels.nbytes
    tracker = Tracker()
    config = resolve("sprint", flags={"strategy": "default", "replicas": 1, "epochs": COPIES[1] / copies})
    train(config, Splits(examples, few, few), choose_devices(config), Hooks(tracker=tracker))
    rates = [row["images_per_second"] for row in tracker.rows if row["kind"] == "train"]
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "examples": len(examples),
        "seconds_per_million": statistics.mean(1e6 / rate for rate in rates[1:] or rates),
        "bytes_beyond_data": highest - data_bytes,
    }


if __name__ == "__main__":
    main()
