"""The story of a run: data -> training -> evaluation -> gate -> a published version -> report.

`train_run` runs all of it; `trainer/steps/` has the steps, in the same order. A run has
a folder, <artifacts>/runs/<run>/, with config.json, checkpoints/, metrics.jsonl, train/ and validation/ (TensorBoard),
model.weights.h5, predictions.npz, figures/, report.html, model_card.md and result.json, which says how the run ended,
also when it failed.

The steps import TensorFlow, which takes seconds. So they are imported late: a wrong setting or folder is reported at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from trainer.config import TrainConfig, hyperparameters
from trainer.errors import ConfigError, ExitCode
from trainer.runs.atomic import write_atomically
from trainer.runs.console import Console
from trainer.runs.environment import environment as describe_environment
from trainer.runs.folder import (
    LOCK_SECONDS,
    WEIGHTS_FILE,
    explains_resume,
    find_unfinished,
    is_finished,
    open_run_folder,
    refuse_full_disk,
    resume_command,
)
from trainer.runs.result import EVALUATE_FILE, PUBLISH_FILE, RESULT_FILE, TRIAL_FILE, RunResult, latest_result, recorded
from trainer.runs.signals import deferred_stop
from trainer.training.cluster import Cluster, find_cluster, wait_for_chief

if TYPE_CHECKING:
    from trainer.publishing.verify_export import VerifyThere
    from trainer.runs.tracking import RunTracker
    from trainer.steps.train import TrainedRun

VALIDATION_LOSSES_FILE = "validation_losses.float32"
"""Of a trial: the cross-entropy of each validation example, to compare two trials on the same examples."""


def train_run(
    config: TrainConfig,
    now: datetime,
    environment: Mapping[str, str],
    console: Console,
    lock_seconds: float = LOCK_SECONDS,
) -> None:
    """Train a model, score it on unseen data, publish it if it passes the gate, and report.

    Args:
        config: what to compute and where to write; an empty run name is filled in.
        now: the time that names the run.
        environment: as in os.environ; it names the other workers, if there are any.
        console: prints progress and results.
        lock_seconds: how long to wait for another process that is training the run.

    Raises:
        RunError: see trainer/errors.py.
    """
    cluster = find_cluster(environment)
    if cluster and not config.run:
        raise ConfigError("several workers need one --run NAME, the same for all; none was given")
    if cluster and not cluster.is_chief:
        _train_as_worker(config, cluster)
        return
    if not config.run and (unfinished := find_unfinished(config)):
        console.facts({"unfinished": f"{unfinished.name}, same settings; resume it: {resume_command(unfinished)}"})
    with open_run_folder(config, now, lock_seconds) as config:
        if is_finished(config):
            place = f"run {config.run!r} is finished ({config.run_dir})"
            console.note(f"{place}: nothing is left to do. For another run, change --run.")
            return
        console.facts({"run": str(config.run_dir), "resume": resume_command(config.run_dir)})
        with (
            explains_resume(config.run_dir),
            recorded(config.run_dir / RESULT_FILE, now) as result,
            _verification(config) as verify,
        ):
            refuse_full_disk(config.run_dir)
            with console.phase("Loading TensorFlow"), deferred_stop():
                from trainer.steps.evaluate import evaluate_model, show_in_tensorboard
                from trainer.steps.publish import publish_and_report
            with _tracker(config, console) as tracker:
                publishes = config.publish and not config.allow_other_data
                run = _train_and_save(config, cluster, tracker, result, publishes=publishes)
                candidate = evaluate_model(config, run.trained.model, run.splits, result, console)
                show = partial(show_in_tensorboard, candidate, tracker.board, run.trained.steps)
                publish_and_report(candidate, result, console, verify=verify, once=True, show=show)


def train_trial(
    config: TrainConfig, now: datetime, console: Console, on_validation: Callable[[int, float], None]
) -> RunResult:
    """Train a model and score it on validation data alone, for a search. The run can be published afterwards.

    Args:
        config: with the name of the run, whose folder is open.
        now: when the trial started.
        console: prints the progress.
        on_validation: gets the epoch and the validation loss after each; a PrunedError that it raises stops the trial.

    Returns:
        What trial.json holds.

    Raises:
        PrunedError: `on_validation` raised it.
        RunError: see trainer/errors.py.
    """
    with recorded(config.run_dir / TRIAL_FILE, now) as result:
        with console.phase("Loading TensorFlow"), deferred_stop():
            from trainer.steps.evaluate import score
        with _tracker(config, console, on_validation) as tracker:
            run = _train_and_save(config, None, tracker, result)
        # Temperature scaling as in serving: an over-confident recipe is not worse for it.
        evaluation = score(run.trained.model, run.splits.validation, run.splits.validation)
        result.validation = evaluation.summary()
        write_atomically(config.run_dir / VALIDATION_LOSSES_FILE, evaluation.losses.tofile)
    return result


def evaluate_run(config: TrainConfig, now: datetime, console: Console) -> None:
    """Score a trained run's weights on its test split again and redraw its report; the run's outcome stays.

    Raises:
        RunError: the run has no weights, or its data cannot be read.
    """
    with recorded(config.run_dir / EVALUATE_FILE, now) as result:
        with console.phase("Loading TensorFlow"), deferred_stop():
            from trainer.steps.evaluate import reload_candidate
            from trainer.steps.publish import report
        candidate = reload_candidate(config, result, console)
        earlier = latest_result(config.run_dir)
        result.outcome, result.gate, result.published = earlier.outcome, earlier.gate, earlier.published
        report(candidate, result, console, succeeded=earlier.exit_code == ExitCode.OK)


def publish_run(config: TrainConfig, now: datetime, console: Console) -> None:
    """Publish a trained run's weights if they pass the gate.

    Raises:
        RunError: the run has no weights, or the gate or the check of the exported files refused it.
    """
    with recorded(config.run_dir / PUBLISH_FILE, now) as result, _verification(config) as verify:
        with console.phase("Loading TensorFlow"), deferred_stop():
            from trainer.steps.evaluate import reload_candidate
            from trainer.steps.publish import publish_and_report
        publish_and_report(reload_candidate(config, result, console), result, console, verify=verify)


def _train_as_worker(config: TrainConfig, cluster: Cluster) -> None:
    """Train together with the chief; the chief alone evaluates, writes and publishes.

    Raises:
        PeersError: another worker was lost, or the chief exited before it had recorded the run as trained.
    """
    from trainer.runs.checkpoint import is_trained

    if is_finished(config) or is_trained(config.run_dir):
        return
    from trainer.runs.tracking import Tracker
    from trainer.steps.train import train_model

    train_model(config, cluster, Tracker())
    wait_for_chief(cluster, lambda: is_trained(config.run_dir))


def _train_and_save(
    config: TrainConfig, cluster: Cluster | None, tracker: RunTracker, result: RunResult, *, publishes: bool = False
) -> TrainedRun:
    """Train, and save the weights; facts and data go into `result`."""
    from trainer.steps.train import train_model

    run = train_model(config, cluster, tracker, publishes=publishes)
    write_atomically(config.run_dir / WEIGHTS_FILE, run.trained.model.save_weights)
    result.facts, result.data = run.facts, run.splits.digests
    result.training = {"steps": run.trained.steps, "seconds": run.trained.seconds}
    result.environment = describe_environment()
    return run


def _verification(config: TrainConfig) -> AbstractContextManager[VerifyThere | None]:
    """Start the process that will verify the exported files. It imports TensorFlow at the same time, on another core."""
    from trainer.publishing.verify_export import fresh_process

    return fresh_process() if config.publish else nullcontext()


def _tracker(
    config: TrainConfig, console: Console, on_validation: Callable[[int, float], None] | None = None
) -> RunTracker:
    from trainer.runs.tracking import RunTracker

    texts = {"config": dataclasses.asdict(config), "environment": describe_environment()}
    return RunTracker(config.run_dir, console, texts, hyperparameters(config), on_validation)
