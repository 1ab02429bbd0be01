"""Training speed of the `fast` preset under three tf.distribute strategies, side by side.

    $ python -m benchmarks.strategies --data-dir mnist/

prints the machine, the data, and

                                  images/s      (lowest - highest)   ratio
    default strategy                   ...        ... -      ...      1.00
    MirroredStrategy, 1 replica        ...        ... -      ...       ...   (target: at least 0.98)
    MirroredStrategy, 2 logical CPUs   ...        ... -      ...       ...   (target: at least 0.95)

`trainer.training.loop.train` runs with the whole preset, augmentation included. The figure is the speed of its compiled
steps with their input. Each ratio compares medians over the rounds with the default strategy's.

Each case runs in its own process, because TensorFlow can split a CPU into logical ones only when it starts, and the
default strategy must be measured on a CPU that is not split. The two logical CPUs share the machine's cores, so they show
what a second replica costs, not what it gains. GPUs are hidden.
"""

import dataclasses
import os

from testbed.report import argument_parser, machine, print_rates, write_json
from testbed.turns import Case, measure, train_in_turns
from trainer.config import resolve

DEFAULT = "default strategy"
STRATEGIES: dict[str, tuple[str, int]] = {
    DEFAULT: ("default", 1),
    "MirroredStrategy, 1 replica": ("mirrored", 1),
    "MirroredStrategy, 2 logical CPUs": ("mirrored", 2),
}
"""`strategy` and `replicas` of each case."""
TARGETS = {"MirroredStrategy, 1 replica": 0.98, "MirroredStrategy, 2 logical CPUs": 0.95}
"""Lowest ratio to the default strategy that the project promises."""


def main() -> None:
    """Measure, print the table and the verdicts, write the JSON."""
    args = argument_parser(__doc__, rounds=7, steps=64).parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the processes of the cases inherit it
    data = str(args.data_dir or "random images of MNIST's size")
    where = machine()
    print(f"{where}\ndata: {data}; {args.rounds} rounds of {args.steps} steps", flush=True)
    config = resolve("fast")
    cases: dict[str, Case] = {
        name: (
            train_in_turns,
            (dataclasses.replace(config, strategy=strategy, replicas=replicas), args.data_dir, args.steps, args.rounds),
        )
        for name, (strategy, replicas) in STRATEGIES.items()
    }
    rates = measure(cases, args.rounds)
    figures = print_rates(rates, reference=lambda _: DEFAULT)
    for name, target in TARGETS.items():
        verdict = "holds" if figures[name]["ratio"] >= target else "MISSED"
        print(f"{name}: target of {target:.2f} {verdict}")
    write_json(args.json, machine=where, data=data, steps=args.steps, cases=figures, targets=TARGETS, rounds=rates)


if __name__ == "__main__":
    main()
