"""What test-time augmentation gains: an unsure model averages over the image moved by one pixel.

    $ python -m benchmarks.prediction_averages RUN... --data-dir mnist/

The folders RUN are those of trained runs. Prints the machine and, for the runs of each network, means: of the network
alone and with the averages of trainer/evaluation/predict.py, on MNIST's validation digits and on photographs of them:

    lenet, ... runs       unsure   wrong: alone  averaged   loss: alone  averaged
    digits                   ...            ...       ...           ...       ...
    photographs              ...            ...       ...           ...       ...

then the share of the wrong digits of photographs that are "not sure" if at most 2 % of the right ones are, and the time of
the first 32 digits together and of the least sure one alone. Nothing here looks at the test split.
"""

import argparse
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from percent import percent
from serving.contract import CLASSES
from testbed.photographs import photographs
from testbed.report import machine, write_json

if TYPE_CHECKING:
    import keras

SEED = 27
"""Seed of the photographs; benchmarks/pictures.py scores those of another one."""
VALIDATION_SIZE = 5000
"""As in the presets for MNIST, so that no run was trained on these digits."""
BATCH = 50
ROUNDS = 30
NOT_SURE_OF_RIGHT = 0.02


def main() -> None:
    """Score every run with and without the averages, print the means of each network's runs, write the JSON."""
    args = _parse_arguments()
    from trainer.data.divide import hold_back
    from trainer.data.idx import read_idx_folder

    validation = hold_back(read_idx_folder(args.data_dir)[0], VALIDATION_SIZE)[1]
    print(machine(), flush=True)
    sets = {
        "digits": (validation.images, np.zeros(len(validation), np.float32)),
        "photographs": _prepare(validation.images[: args.photographs], validation.labels[: args.photographs]),
    }
    figures: dict[str, list[dict[str, dict[str, float]]]] = defaultdict(list)
    for run in args.runs:
        model = _load(run)
        of_run = {
            name: _score(model, images, doubt, validation.labels[: len(images)])
            for name, (images, doubt) in sets.items()
        }
        figures[model.name].append({**of_run, "milliseconds": _times(model, validation.images)})
    for network, of_runs in figures.items():
        _print_means(network, of_runs, list(sets))
    write_json(args.json, machine=machine(), runs=[str(run) for run in args.runs], figures=figures)


def _print_means(network: str, of_runs: list[dict[str, dict[str, float]]], sets: list[str]) -> None:
    means = {
        name: {figure: statistics.mean(run[name][figure] for run in of_runs) for figure in of_runs[0][name]}
        for name in of_runs[0]
    }
    print(f"\n{f'{network}, {len(of_runs)} runs':18}  unsure   wrong: alone  averaged   loss: alone  averaged")
    for name in sets:
        mean = means[name]
        print(
            f"{name:18}{percent(mean['unsure'], 1):>8}{mean['wrong_alone']:>15.1f}{mean['wrong_averaged']:>10.1f}"
            f"{mean['loss_alone']:>14.4f}{mean['loss_averaged']:>10.4f}"
        )
    photos, times = means["photographs"], means["milliseconds"]
    print(
        f"wrong predictions that are not sure where at most {percent(NOT_SURE_OF_RIGHT, 0)} of the right are: "
        f"{percent(photos['not_sure_alone'], 1)} alone, {percent(photos['not_sure_averaged'], 1)} averaged\n"
        f"32 digits: {times['batch_alone']:.2f} ms alone, {times['batch_averaged']:.2f} averaged; "
        f"one unsure digit: {times['one_alone']:.2f} and {times['one_averaged']:.2f}",
        flush=True,
    )


def _prepare(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a photograph of each digit as the network sees it, uint8 [N, 28, 28], and its doubt, float32 [N]."""
    import tensorflow as tf

    from trainer.pictures.normalize import normalize

    prepare = tf.function(normalize, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    taken, prepared = photographs(images, labels, SEED), []
    while some := list(itertools.islice(taken, BATCH)):
        pictures = prepare(tf.constant([one.encoded for one in some]))
        prepared.append((pictures.images.numpy(), pictures.doubt.numpy()))
    return tuple(map(np.concatenate, zip(*prepared, strict=True)))  # type: ignore[return-value]


def _load(run: Path) -> "keras.Model":
    from trainer.config import resolve
    from trainer.initial_weights import read_initial_model
    from trainer.runs.folder import CONFIG_FILE

    settings = resolve(file=run / CONFIG_FILE)
    flags = {"model": settings.model, "width": settings.width, "init_from": str(run)}
    return read_initial_model(resolve("fast", flags=flags))


def _score(model: "keras.Model", images: np.ndarray, doubt: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    from scipy.special import softmax

    from trainer.evaluation.metrics import cross_entropy
    from trainer.evaluation.predict import UNSURE, compile_predict

    figures = {}
    for name, logits in (("alone", _alone(model, images)), ("averaged", compile_predict(model)(images))):
        probabilities = softmax(logits, axis=1)
        right = probabilities.argmax(axis=1) == labels
        # As the exported graph computes it.
        confidence = (1 - doubt) * probabilities.max(axis=1) + doubt / CLASSES
        threshold = np.quantile(confidence[right], NOT_SURE_OF_RIGHT, method="lower")
        figures |= {
            f"wrong_{name}": float((~right).sum()),
            f"loss_{name}": cross_entropy(logits, labels),
            f"not_sure_{name}": float((confidence[~right] < threshold).mean()) if not right.all() else 1.0,
        }
        if name == "alone":
            figures["unsure"] = float((probabilities.max(axis=1) < UNSURE).mean())
    return figures


def _alone(model: "keras.Model", images: np.ndarray) -> np.ndarray:
    return np.concatenate([model(some, training=False).numpy() for some in np.array_split(images, 10)])


def _times(model: "keras.Model", images: np.ndarray) -> dict[str, float]:
    """Return the median milliseconds of the first 32 digits and of the least sure one, measured in turns."""
    import tensorflow as tf

    from trainer.evaluation.predict import predict_logits

    signature = [tf.TensorSpec([None, *images.shape[1:]], tf.uint8)]
    calls: dict[str, Callable] = {
        "alone": tf.function(lambda some: model(some, training=False), signature, autograph=False),
        "averaged": tf.function(lambda some: predict_logits(model, some), signature, autograph=False),
    }
    least_sure = tf.nn.softmax(_alone(model, images)).numpy().max(axis=1).argmin()
    inputs = {"batch": tf.constant(images[:32]), "one": tf.constant(images[least_sure : least_sure + 1])}
    seconds: dict[str, list[float]] = {f"{size}_{name}": [] for size in inputs for name in calls}
    for _ in range(ROUNDS):
        for size, some in inputs.items():
            for name, call in calls.items():
                began = time.perf_counter()
                call(some).numpy()
                seconds[f"{size}_{name}"].append(time.perf_counter() - began)
    return {case: 1000 * statistics.median(values) for case, values in seconds.items()}


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a trained run")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the four IDX files")
    parser.add_argument("--photographs", type=int, default=VALIDATION_SIZE, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
