"""How good a preset is: its test accuracy over several seeds, and the seconds that training took.

    $ python -m benchmarks.accuracy --preset fast --seeds 5 --dataset idx --data-dir mnist/

prints the machine, the preset, and

    seed  test accuracy  training s
       0        99.xx %         x.x
     ...
    mean        99.xx %         x.x
      sd         0.xx

Seed k decides initial weights, order, augmentation and dropout of the k-th run. Each run is the preset's whole fixed
schedule; its last (or averaged) weights are scored once on the whole test split, and every run is in the table: nothing
is chosen by the test split. Seconds are those of the training steps, the first call's compilation included, evaluations
not.
"""

import argparse
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.report import machine, write_json
from trainer.config import TrainConfig, resolve
from trainer.presets import PRESETS

if TYPE_CHECKING:
    from trainer.data.split import Splits
    from trainer.training.distribute import Devices


def main() -> None:
    """Train once per seed, print a line each as it ends and the summary, write the JSON."""
    args = _parse_arguments()
    flags = {"dataset": args.dataset, "data_dir": args.data_dir, "epochs": args.epochs}
    flags = {name: value for name, value in flags.items() if value is not None}
    config = resolve(args.preset, flags=flags)
    where = machine()
    print(f"{where}\npreset {config.preset} ({config.model}, {config.epochs:g} epochs) on {config.dataset}\n")

    from trainer.steps.train import load_data
    from trainer.training.distribute import choose_devices

    devices = choose_devices(config)
    splits = load_data(config)
    print("seed  test accuracy  training s", flush=True)
    runs = []
    for seed in range(args.seeds):
        seconds, accuracy = train_and_score(resolve(args.preset, flags={**flags, "seed": seed}), splits, devices)
        runs.append({"seed": seed, "test_accuracy": accuracy, "training_seconds": seconds})
        print(f"{seed:4}  {accuracy:11.2%}    {seconds:10.1f}", flush=True)
    accuracies = [run["test_accuracy"] for run in runs]
    mean, median_seconds = statistics.mean(accuracies), statistics.median(run["training_seconds"] for run in runs)
    sd = statistics.stdev(accuracies) if len(runs) > 1 else None
    print(f"mean  {mean:11.3%}    {median_seconds:10.1f} (median)")
    if sd is not None:
        print(f"  sd  {100 * sd:10.3f}")
    summary = {"mean_test_accuracy": mean, "sd_test_accuracy": sd, "median_training_seconds": median_seconds}
    write_json(args.json, machine=where, preset=config.preset, dataset=config.dataset, summary=summary, runs=runs)


def train_and_score(config: TrainConfig, splits: "Splits", devices: "Devices") -> tuple[float, float]:
    """Seconds of training, and the accuracy on the whole test split."""
    from trainer.evaluation.metrics import compile_predict, evaluate
    from trainer.training.loop import Hooks, train

    trained = train(config, splits, devices, Hooks())
    return trained.seconds, evaluate(compile_predict(trained.model), splits.test).accuracy


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="fast", help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="number of runs, seeds 0, 1, ... (default: %(default)s)")
    parser.add_argument("--dataset", choices=("mnist", "idx", "optdigits"), help="(default: the preset's)")
    parser.add_argument("--data-dir", type=Path, help="folder of the data set (default: the preset's)")
    parser.add_argument("--epochs", type=float, help="instead of the preset's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
