"""The whole story of a run: data -> train -> evaluate -> report -> publish.

A run has a folder, <artifacts>/runs/<run>/, with config.json, checkpoints/, metrics.jsonl, tensorboard/,
model.weights.h5, figures/, report.html, model_card.md and result.json, which says how the run ended, also when it failed.
"""

import dataclasses
import platform
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from serving.contract import MODEL_NAME
from trainer.config import ConfigError, TrainConfig, to_json, what_it_computes
from trainer.data.load import load_splits
from trainer.data.split import Split, Splits
from trainer.evaluation.figures import save_figures
from trainer.evaluation.metrics import Evaluation, compile_predict, evaluate, fit_temperature, percent
from trainer.evaluation.report import Story, write_model_card, write_report
from trainer.publishing.publish import Gate, Published, find_published, publish
from trainer.publishing.versions import RETIRED_SUFFIX
from trainer.runs.atomic import write_atomically
from trainer.runs.checkpoint import Checkpoints, is_trained
from trainer.runs.folder import RESULT_FILE, TRIAL_FILE, read_record
from trainer.runs.signals import deferred_stop
from trainer.runs.tracking import RunTracker, Tracker, read_rows
from trainer.training.cluster import Cluster, wait_for_peers
from trainer.training.distribute import Devices, choose_devices, peers_may_be_lost
from trainer.training.loop import Trained, train
from trainer.training.model import build_model, weights_digest

WEIGHTS_FILE = "model.weights.h5"


def train_and_publish(config: TrainConfig, cluster: Cluster | None, now: datetime, record: dict[str, Any]) -> None:
    """Train a model, score it on unseen data, report, and publish it if it passes the gate.

    Args:
        config: with the name of the run, whose folder is there.
        cluster: the workers that train together, of which this is the chief; None if there are no others.
        now: the time that numbers the version.
        record: filled with what happened, for result.json.

    Raises:
        RunError: see `trainer.errors`.
    """
    folder = config.run_dir
    with RunTracker(folder, texts={"config": to_json(config)}) as tracker:
        trained, splits, devices = _train(config, cluster, tracker)
        write_atomically(folder / WEIGHTS_FILE, trained.model.save_weights)
        tracker.graph(trained.model)
        record["facts"] = _facts(config, splits, trained, devices)
        evaluation = _evaluate(trained.model, splits, record)
        figures = save_figures(folder / "figures", tracker.rows, evaluation, splits.test.images)
        tracker.pictures(figures, step=trained.steps)
    _publish_and_tell(config, trained.model, evaluation, splits, now, record, figures, once=True)


def train_with_chief(config: TrainConfig, cluster: Cluster) -> None:
    """Take part in a run as one of its other workers, which write nothing.

    Raises:
        RunError: see `trainer.errors`.
    """
    if not is_trained(config.run_dir):
        _train(config, cluster, Tracker())


def train_for_search(config: TrainConfig, record: dict[str, Any]) -> None:
    """Train a model and score it on validation data alone; `record` is for trial.json. The run can be published then.

    Raises:
        RunError: see `trainer.errors`.
    """
    folder = config.run_dir
    with RunTracker(folder, texts={"config": to_json(config)}) as tracker:
        trained, splits, devices = _train(config, None, tracker)
    write_atomically(folder / WEIGHTS_FILE, trained.model.save_weights)
    record["facts"] = _facts(config, splits, trained, devices)
    record["data"] = {"train": splits.train.digest, "validation": splits.validation.digest}
    # With the temperature that it would be served with: how sure a recipe makes a model is no reason to choose it.
    record["validation"] = _score(trained.model, splits.validation, splits.validation).summary()


def evaluate_run(config: TrainConfig, record: dict[str, Any]) -> None:
    """Score a trained run's weights on its test split again and redraw its report; `record` is for evaluate.json.

    Raises:
        RunError: the run has no weights, or its data cannot be read.
    """
    model, splits = _reload(config, record)
    evaluation = _evaluate(model, splits, record)
    figures = save_figures(config.run_dir / "figures", read_rows(config.run_dir), evaluation, splits.test.images)
    _tell(config, evaluation, "Evaluated again from the saved weights.", True, record, figures)


def publish_run(config: TrainConfig, now: datetime, record: dict[str, Any]) -> None:
    """Publish a trained run's weights; `record` is for publish.json.

    Raises:
        RunError: the run has no weights, or was refused by the gate or by the check.
    """
    model, splits = _reload(config, record)
    evaluation = _evaluate(model, splits, record)
    figures = save_figures(config.run_dir / "figures", read_rows(config.run_dir), evaluation, splits.test.images)
    _publish_and_tell(config, model, evaluation, splits, now, record, figures)


def _train(config: TrainConfig, cluster: Cluster | None, tracker: Tracker) -> tuple[Trained, Splits, Devices]:
    if is_trained(config.run_dir):
        cluster = None  # The other workers have left, and are not needed any more.
    if cluster:
        wait_for_peers(cluster, config.peer_timeout_seconds)
    with peers_may_be_lost(cluster):
        devices = choose_devices(config.strategy, config.replicas, jit_compile=config.jit_compile, cluster=cluster)
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        splits = load_splits(config.dataset, config.data_path, config.validation_size)
        digests = {f"{part} data": getattr(splits, part).digest for part in ("train", "validation", "test")}
        checkpoints = Checkpoints(
            config.run_dir,
            {**what_it_computes(config), **digests},
            every_seconds=config.checkpoint_seconds,
            every_steps=config.checkpoint_steps,
            keep=config.checkpoints_kept,
            before_write=tracker.sync,
        )
        try:
            with deferred_stop() as stop_requested:
                trained = train(
                    config,
                    splits.train,
                    splits.validation,
                    devices,
                    tracker,
                    checkpoints,
                    stop_requested=stop_requested,
                )
        finally:
            checkpoints.wait()  # Whatever ended the training: one that was begun is worth its end.
    return trained, splits, devices


def _reload(config: TrainConfig, record: dict[str, Any]) -> tuple[keras.Model, Splits]:
    weights = config.run_dir / WEIGHTS_FILE
    if not weights.is_file():
        raise ConfigError(f"{config.run_dir}: this run was not trained to its end ({WEIGHTS_FILE} is missing)")
    choose_devices()
    records = (read_record(config.run_dir / name) for name in (RESULT_FILE, TRIAL_FILE))
    record["facts"] = next((found["facts"] for found in records if "facts" in found), {})
    model = build_model(config.model, width=config.width, dropout=config.dropout)
    model.load_weights(weights)
    return model, load_splits(config.dataset, config.data_path, config.validation_size)


def _evaluate(model: keras.Model, splits: Splits, record: dict[str, Any]) -> Evaluation:
    # TensorFloat-32 (on by default on newer GPUs) keeps three digits: too few for the check of the exported files.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    evaluation = _score(model, splits.validation, splits.test)
    record["evaluation"] = evaluation.summary()
    return evaluation


def _score(model: keras.Model, validation: Split, split: Split) -> Evaluation:
    """Score the model on `split`, with the temperature that fits `validation`."""
    predict = compile_predict(model)
    temperature = fit_temperature(predict(validation.images), validation.labels)
    return evaluate(predict, split, temperature)


def _publish_and_tell(
    config: TrainConfig,
    model: keras.Model,
    evaluation: Evaluation,
    splits: Splits,
    now: datetime,
    record: dict[str, Any],
    figures: list[Path],
    *,
    once: bool = False,
) -> None:
    """Publish unless the config says not to, and report whatever came of it; `once`: unless this very model is live."""
    try:
        outcome = _publish_if_wanted(config, model, evaluation, splits, now, record, once=once)
    except Exception as error:
        _tell(config, evaluation, f"Not published: {error}", False, record, figures)
        raise
    _tell(config, evaluation, outcome, True, record, figures)


def _publish_if_wanted(
    config: TrainConfig,
    model: keras.Model,
    evaluation: Evaluation,
    splits: Splits,
    now: datetime,
    record: dict[str, Any],
    *,
    once: bool,
) -> str:
    if not config.publish:
        return "Trained; not published, as asked."
    model_dir, identity = config.models_dir / MODEL_NAME, {"run": config.run, "weights": weights_digest(model)}
    if once and (folder := find_published(model_dir, identity)):
        # An attempt before this one was stopped after it had published.
        record["published"] = {"version": int(folder.name.removesuffix(RETIRED_SUFFIX)), "folder": str(folder)}
        again = f"; `python -m trainer publish {config.run_dir}` publishes it again"
        return f"Published before, in {folder}{again if folder.name.endswith(RETIRED_SUFFIX) else ''}."
    published: Published = publish(
        model,
        evaluation,
        splits.test,
        model_dir=model_dir,
        gate=Gate(min_accuracy=config.min_accuracy, tolerance=config.tolerance),
        now=now,
        metadata={**identity, "facts": record["facts"], "test_fingerprint": splits.test.fingerprint},
    )
    record["published"] = {"version": published.version, "folder": str(published.folder), "check": published.check}
    before = f"; before it: {published.served_before}" if published.served_before else ""
    return f"Published as version {published.version} in {published.folder}{before}."


def _facts(config: TrainConfig, splits: Splits, trained: Trained, devices: Devices) -> dict[str, str]:
    shared = f" and those of {len(devices.cluster.peers)} other worker(s)" if devices.cluster else ""
    sizes = (len(part) for part in (splits.train, splits.validation, splits.test))
    return {
        "data set": "{}: {:,} training, {:,} validation, {:,} test digits".format(config.dataset, *sizes),
        "network": f"{config.model}, {trained.model.count_params():,} parameters",
        "training": f"{trained.steps:,} steps of {config.global_batch_size} in {trained.seconds:.1f} s, "
        f"{trained.steps * config.global_batch_size / trained.seconds:,.0f} images/s",
        "devices": f"{', '.join(devices.names)}{shared} ({config.precision})",
        "machine": f"{platform.machine()}, Python {platform.python_version()}, TensorFlow {tf.__version__}",
        "finished": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def _tell(
    config: TrainConfig,
    evaluation: Evaluation,
    outcome: str,
    succeeded: bool,
    record: dict[str, Any],
    figures: list[Path],
) -> None:
    """Write the report and the model card, and print what came out and where it is."""
    story = Story(config.run, outcome, succeeded, record["facts"], dataclasses.asdict(config))
    try:
        write_report(config.run_dir / "report.html", story, evaluation, figures)
        write_model_card(config.run_dir / "model_card.md", story, evaluation)
    except OSError as error:
        # A version may be live by now: a page that cannot be written must not make that look like a failure.
        print(f"warning: cannot write the report: {error}", file=sys.stderr)
    low, high = evaluation.accuracy_interval
    print(f"Test accuracy {percent(evaluation.accuracy)} (95 % interval {percent(low)} to {percent(high)}).")
    print(outcome)
    print(f"Report:      {config.run_dir / 'report.html'}")
    print(f"Figures:     {config.run_dir / 'figures'}")
    print(f"TensorBoard: tensorboard --logdir {config.artifacts / 'runs'}", flush=True)
