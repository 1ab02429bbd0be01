"""The whole story of a run: data -> train -> evaluate -> report -> publish.

A run has a folder, <artifacts>/runs/<run>/, with config.json, metrics.jsonl, tensorboard/, model.weights.h5, figures/,
report.html, model_card.md and result.json, which says how the run ended, also when it failed.
"""

import dataclasses
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from serving.contract import MODEL_NAME
from trainer.config import ConfigError, TrainConfig, resolve
from trainer.data import load_splits
from trainer.distribute import choose_devices
from trainer.evaluate import Evaluation, compile_predict, evaluate
from trainer.figures import save_figures
from trainer.model import build_model
from trainer.publish import Gate, Published, publish
from trainer.report import Story, write_model_card, write_report
from trainer.run_folder import open_run_folder, read_rows, recorded, write_atomically
from trainer.signals import stop_signals
from trainer.split import Splits
from trainer.tracking import Tracker
from trainer.train import Trained, train

WEIGHTS_FILE = "model.weights.h5"


def train_and_publish(config: TrainConfig, now: datetime) -> None:
    """Train a model, score it on unseen data, report, and publish it if it passes the gate.

    Raises:
        RunError: see `trainer.exit_codes`; result.json says the same.
    """
    config = dataclasses.replace(config, run=config.run or f"{config.preset}-{now.strftime('%Y%m%d-%H%M%S')}")
    with open_run_folder(config) as folder, recorded(folder, "train", now) as result, stop_signals() as stop_requested:
        devices = choose_devices(config.strategy, config.replicas, jit_compile=config.jit_compile)
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        splits = load_splits(config.dataset, config.data_path, config.validation_size)
        with Tracker(folder) as tracker:
            tracker.text("config", (folder / "config.json").read_text())
            trained = train(config, splits.train, splits.validation, devices, tracker, stop_requested)
            tracker.graph(trained.model)
            write_atomically(folder / WEIGHTS_FILE, trained.model.save_weights)
            evaluation = evaluate(compile_predict(trained.model), splits.test)
            figures = save_figures(folder / "figures", tracker.rows, evaluation, splits.test.images)
            tracker.pictures(figures, step=trained.steps)
        result["evaluation"] = evaluation.summary()
        result["facts"] = facts = _facts(config, splits, trained, devices.names)
        try:
            outcome, succeeded = _publish_if_wanted(config, trained.model, evaluation, splits, now, result, facts), True
        except Exception as error:
            outcome, succeeded = f"Not published: {error}", False
            raise
        finally:
            _write_documents(folder, config, outcome, succeeded, facts, evaluation, figures)
            _print_where(config, evaluation, outcome)


def evaluate_run(folder: Path) -> None:
    """Score a finished run's weights on its test split again and redraw its report.

    Raises:
        RunError: there is no such run, or its data cannot be read.
    """
    config, model, splits = _reload(folder)
    with recorded(folder, "evaluate", datetime.now(UTC)) as result:
        evaluation = evaluate(compile_predict(model), splits.test)
        figures = save_figures(folder / "figures", read_rows(folder), evaluation, splits.test.images)
        outcome = "Evaluated again from the saved weights."
        _write_documents(folder, config, outcome, True, {"data set": config.dataset}, evaluation, figures)
        result["evaluation"] = evaluation.summary()
        _print_where(config, evaluation, outcome)


def publish_run(folder: Path, now: datetime, gate: dict[str, Any]) -> None:
    """Publish a finished run's weights; `gate` overrides fields of the run's own.

    Raises:
        RunError: no such run, refused by the gate, or by the check.
    """
    config, model, splits = _reload(folder)
    config = dataclasses.replace(config, publish=True, **gate)
    with recorded(folder, "publish", now) as result:
        evaluation = evaluate(compile_predict(model), splits.test)
        result["evaluation"] = evaluation.summary()
        _print_where(config, evaluation, _publish_if_wanted(config, model, evaluation, splits, now, result, {}))


def _reload(folder: Path) -> tuple[TrainConfig, keras.Model, Splits]:
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise ConfigError(f"{folder}: no finished run ({WEIGHTS_FILE} is missing); expected <artifacts>/runs/<run>")
    # The run may have been moved, or mounted elsewhere, since it was trained: it lies where it lies now.
    moved = {"artifacts": folder.resolve().parent.parent, "run": folder.resolve().name}
    config = resolve(file=folder / "config.json", flags=moved)
    model = build_model(config.model, width=config.width, dropout=config.dropout)
    model.load_weights(weights)
    return config, model, load_splits(config.dataset, config.data_path, config.validation_size)


def _publish_if_wanted(
    config: TrainConfig,
    model: keras.Model,
    evaluation: Evaluation,
    splits: Splits,
    now: datetime,
    result: dict[str, Any],
    facts: dict[str, str],
) -> str:
    """Publish unless the config says not to; returns one sentence about what happened."""
    if not config.publish:
        return "Trained; not published, as asked."
    published: Published = publish(
        model,
        evaluation,
        splits.test,
        model_dir=config.models_dir / MODEL_NAME,
        gate=Gate(min_accuracy=config.min_accuracy, tolerance=config.tolerance),
        now=now,
        metadata={"run": config.run, "facts": facts, "test_fingerprint": splits.test.fingerprint},
    )
    result["published"] = {"version": published.version, "folder": str(published.folder), "check": published.check}
    before = f"; before it: {published.served_before}" if published.served_before else ""
    return f"Published as version {published.version} in {published.folder}{before}."


def _facts(config: TrainConfig, splits: Splits, trained: Trained, devices: tuple[str, ...]) -> dict[str, str]:
    sizes = (len(part) for part in (splits.train, splits.validation, splits.test))
    return {
        "data set": "{}: {:,} training, {:,} validation, {:,} test digits".format(config.dataset, *sizes),
        "network": f"{config.model}, {trained.model.count_params():,} parameters",
        "training": f"{trained.steps:,} steps of {config.global_batch_size} in {trained.seconds:.1f} s, "
        f"{trained.steps * config.global_batch_size / trained.seconds:,.0f} images/s",
        "devices": f"{', '.join(devices)} ({config.precision})",
        "machine": f"{platform.machine()}, Python {platform.python_version()}, TensorFlow {tf.__version__}",
        "finished": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def _write_documents(
    folder: Path,
    config: TrainConfig,
    outcome: str,
    succeeded: bool,
    facts: dict[str, str],
    evaluation: Evaluation,
    figures: list[Path],
) -> None:
    story = Story(config.run, outcome, succeeded, facts, dataclasses.asdict(config))
    write_report(folder / "report.html", story, evaluation, figures)
    write_model_card(folder / "model_card.md", story, evaluation)


def _print_where(config: TrainConfig, evaluation: Evaluation, outcome: str) -> None:
    low, high = evaluation.accuracy_interval
    print(f"Test accuracy {evaluation.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}).")
    print(outcome)
    print(f"Report:      {config.run_dir / 'report.html'}")
    print(f"Figures:     {config.run_dir / 'figures'}")
    print(f"TensorBoard: tensorboard --logdir {config.artifacts / 'runs'}", flush=True)
