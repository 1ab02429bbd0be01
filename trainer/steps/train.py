"""The first step of a run: read the data, choose the devices, and train."""

from __future__ import annotations

import dataclasses
import resource
from dataclasses import dataclass
from typing import cast

import tensorflow as tf

from percent import percent
from trainer.config import TrainConfig, what_it_computes
from trainer.data.load import Extra, load_splits
from trainer.data.split import Splits
from trainer.errors import memory_errors_explained
from trainer.initial_weights import read_initial_model
from trainer.precision import AUTO, Precision, fixed_precision
from trainer.publishing.gate import refuse_other_data
from trainer.runs.checkpoint import Checkpoints, is_trained
from trainer.runs.environment import utc_now
from trainer.runs.signals import deferred_stop
from trainer.runs.tracking import Tracker
from trainer.training.cluster import Cluster, wait_for_peers
from trainer.training.distribute import Devices, choose_devices, peers_may_be_lost
from trainer.training.loop import Hooks, Trained, train
from trainer.training.model import weights_digest
from trainer.training.train_state import REVISION


@dataclass(frozen=True)
class TrainedRun:
    """A trained model with what it was trained on."""

    trained: Trained
    splits: Splits
    facts: dict[str, str]
    """Name and value: data, network, training, devices, memory."""


def train_model(
    config: TrainConfig, cluster: Cluster | None, tracker: Tracker, *, publishes: bool = False
) -> TrainedRun:
    """Train the config's network on its data set, from the newest checkpoint if there is one.

    Args:
        config: the settings of the run, whose folder exists.
        cluster: this worker and the others; None = one process.
        tracker: gets the metrics and prints the progress.
        publishes: refuse data on which the model could not be compared with the served version.

    Raises:
        RunError: see trainer/errors.py.
        StoppedError: a signal stopped the training; its state is saved.
    """
    if is_trained(config.run_dir):
        cluster = None  # Nothing is left to train together: the other workers have exited.
    if cluster:
        wait_for_peers(cluster, config.peer_timeout_seconds)
    with memory_errors_explained(), peers_may_be_lost(cluster):
        devices = choose_devices(config, cluster)
        precision = devices.broadcast_from_chief(lambda: fixed_precision(config.precision))
        if config.precision == AUTO:
            # The workers' machines may differ.
            config = dataclasses.replace(config, precision=cast("Precision", precision))
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        initial = read_initial_model(config) if config.init_from else None
        with tracker.console.phase(f"Loading {config.dataset}"):
            splits = load_data(config)
        if publishes and not is_trained(config.run_dir):
            refuse_other_data(splits.test, config.model_dir)
        drawn = f" ({percent(config.pen_weight, 0)} drawn by the pen)" if config.pen_weight else ""
        sizes = (
            f"{len(splits.train):,} training{drawn}, {len(splits.validation):,} validation, {len(splits.test):,} test"
        )
        tracker.console.facts(
            {
                "data": f"{config.dataset}: {sizes}",
                "devices": ", ".join(devices.names),
                "network": f"{config.model}, width {config.width:g}, {config.precision}",
            }
        )
        checkpoints = Checkpoints(
            config.run_dir,
            {
                **what_it_computes(config),
                **{f"{part} data": digest for part, digest in splits.digests.items()},
                **({"initial weights": weights_digest(initial)} if initial else {}),
                "training revision": REVISION,
            },
            every_seconds=config.checkpoint_seconds,
            every_steps=config.checkpoint_steps,
            keep=config.checkpoints_kept,
            before_write=tracker.sync,
        )
        try:
            with deferred_stop() as stop_requested:
                hooks = Hooks(
                    tracker=tracker,
                    checkpoints=checkpoints,
                    stop_requested=stop_requested,
                    profile_folder=config.run_dir if devices.is_chief else None,
                )
                trained = train(config, splits, devices, hooks, initial)
        finally:
            checkpoints.wait()  # A checkpoint that is half written is finished, however training ended.
    return TrainedRun(trained, splits, _facts(config, splits, trained, devices))


def load_data(config: TrainConfig) -> Splits:
    """Return the splits of the config's data set, with the pen's digits and the extra pictures mixed in."""
    extra = Extra(config.extra_data, config.extra_weight) if config.extra_data else None
    return load_splits(config.dataset, config.data_path, config.validation_size, config.pen_weight, extra)


def _facts(config: TrainConfig, splits: Splits, trained: Trained, devices: Devices) -> dict[str, str]:
    shared = f" and those of {len(devices.cluster.peers)} other worker(s)" if devices.cluster else ""
    sizes = (len(part) for part in (splits.train, splits.validation, splits.test))
    return {
        "data set": "{}: {:,} training, {:,} validation, {:,} test digits".format(config.dataset, *sizes),
        **({"pen": f"draws {percent(config.pen_weight, 0)} of the training digits"} if config.pen_weight else {}),
        "network": f"{config.model}, {trained.model.count_params():,} parameters",
        **({"initial weights": f"of {config.init_from}, with a new optimizer"} if config.init_from else {}),
        "training": f"{trained.steps:,} steps of {config.global_batch_size} in {trained.seconds:.1f} s, "
        f"{trained.steps * config.global_batch_size / trained.seconds:,.0f} images/s",
        "devices": f"{', '.join(devices.names)}{shared} ({config.precision})",
        "memory": f"{_peak_memory_bytes(devices) / 2**30:.2f} GiB at most",
        "finished": utc_now(),
        "test split": "scored once, after training",
    }


def _peak_memory_bytes(devices: Devices) -> int:
    """Return the most memory that the process has used; with GPUs, the most memory of a GPU."""
    gpus = [name for name in devices.names if name.startswith("GPU")]
    if gpus:
        return max(tf.config.experimental.get_memory_info(name)["peak"] for name in gpus)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
