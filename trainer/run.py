"""The story of a run: data -> training -> evaluation -> report -> publishing.

`train_run` tells it from the first decision to the last line; the functions below it are its steps. A run has a folder,
<artifacts>/runs/<run>/, with config.json, checkpoints/, metrics.jsonl, train/ and validation/ (TensorBoard),
model.weights.h5, figures/, report.html, model_card.md and result.json, which says how the run ended, also when it failed.

Steps import TensorFlow themselves: a wrong setting or folder is reported before the seconds that the import takes.
"""

from __future__ import annotations

import dataclasses
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from trainer.config import TrainConfig, what_it_computes
from trainer.errors import ConfigError, ExitCode, memory_errors_explained
from trainer.initial_weights import read_initial_model
from trainer.percent import percent
from trainer.precision import AUTO, Precision, fixed_precision
from trainer.runs.atomic import write_atomically
from trainer.runs.console import Console
from trainer.runs.environment import environment as describe_environment
from trainer.runs.folder import (
    PREDICTIONS_FILE,
    WEIGHTS_FILE,
    explains_resume,
    is_finished,
    open_run_folder,
    refuse_full_disk,
    resume_command,
)
from trainer.runs.result import EVALUATE_FILE, PUBLISH_FILE, RESULT_FILE, TRIAL_FILE, RunResult, read_result, recorded
from trainer.training.cluster import Cluster, find_cluster, wait_for_chief, wait_for_peers

if TYPE_CHECKING:
    import keras

    from trainer.data.split import Split, Splits
    from trainer.evaluation.metrics import Evaluation
    from trainer.evaluation.report import Story
    from trainer.runs.tracking import RunTracker, Tracker
    from trainer.training.distribute import Devices
    from trainer.training.loop import Trained

VALIDATION_LOSSES_FILE = "validation_losses.float32"
"""Of a trial: the cross-entropy of each validation example, to compare two trials on the same examples."""


@dataclass(frozen=True)
class Candidate:
    """A trained and evaluated model, on its way to the gate."""

    config: TrainConfig
    model: keras.Model
    splits: Splits
    facts: dict[str, str]
    evaluation: Evaluation
    """On the test split."""


def train_run(config: TrainConfig, now: datetime, environment: Mapping[str, str], console: Console) -> None:
    """Train a model, score it on unseen data, report, and publish it if it passes the gate.

    Args:
        config: what to compute and where to write; an empty run name is filled in.
        now: the time that names the run.
        environment: as in os.environ; it names the other workers, if there are any.
        console: prints progress and results.

    Raises:
        RunError: see trainer/errors.py.
    """
    cluster = find_cluster(environment)
    if cluster and not config.run:
        raise ConfigError("several workers need one --run NAME, the same for all; none was given")
    if cluster and not cluster.is_chief:
        _train_as_worker(config, cluster)
        return
    with open_run_folder(config, now) as config:
        if is_finished(config):
            place = f"run {config.run!r} is finished ({config.run_dir})"
            console.note(f"{place}: nothing is left to do. For another run, change --run.")
            return
        console.facts({"run": str(config.run_dir), "resume": resume_command(config.run_dir)})
        with explains_resume(config.run_dir), recorded(config.run_dir / RESULT_FILE, now) as result:
            refuse_full_disk(config.run_dir)
            with _tracker(config, console) as tracker:
                trained, splits, devices = _train(config, cluster, tracker)
                write_atomically(config.run_dir / WEIGHTS_FILE, trained.model.save_weights)
                result.facts, result.data = _facts(config, splits, trained, devices), splits.digests
                result.environment = describe_environment()
                candidate = _evaluate(config, trained.model, splits, result, console)
                _show_in_tensorboard(candidate, tracker, trained.steps)
            _publish_and_report(candidate, result, console, once=True)


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
        with _tracker(config, console, on_validation) as tracker:
            trained, splits, devices = _train(config, None, tracker)
        write_atomically(config.run_dir / WEIGHTS_FILE, trained.model.save_weights)
        result.facts, result.data = _facts(config, splits, trained, devices), splits.digests
        result.environment = describe_environment()
        # Temperature scaling as in serving: an over-confident recipe is not worse for it.
        evaluation = _score(trained.model, splits.validation, splits.validation)
        result.validation = evaluation.summary()
        write_atomically(config.run_dir / VALIDATION_LOSSES_FILE, evaluation.losses.tofile)
    return result


def evaluate_run(config: TrainConfig, now: datetime, console: Console) -> None:
    """Score a trained run's weights on its test split again and redraw its report; the run's outcome stays.

    Raises:
        RunError: the run has no weights, or its data cannot be read.
    """
    with recorded(config.run_dir / EVALUATE_FILE, now) as result:
        candidate = _reload(config, result, console)
        earlier = _latest_result(config)
        result.outcome, result.gate, result.published = earlier.outcome, earlier.gate, earlier.published
        _report(candidate, result, console, succeeded=earlier.exit_code == ExitCode.OK)


def publish_run(config: TrainConfig, now: datetime, console: Console) -> None:
    """Publish a trained run's weights if they pass the gate.

    Raises:
        RunError: the run has no weights, or the gate or the check of the exported files refused it.
    """
    with recorded(config.run_dir / PUBLISH_FILE, now) as result:
        candidate = _reload(config, result, console)
        _publish_and_report(candidate, result, console)


def _train_as_worker(config: TrainConfig, cluster: Cluster) -> None:
    """Train together with the chief; the chief alone evaluates, writes and publishes.

    Raises:
        PeersError: another worker was lost, or the chief exited before it had recorded the run as trained.
    """
    from trainer.runs.checkpoint import is_trained
    from trainer.runs.tracking import Tracker

    if is_finished(config) or is_trained(config.run_dir):
        return
    _train(config, cluster, Tracker())
    wait_for_chief(cluster, lambda: is_trained(config.run_dir))


def _train(config: TrainConfig, cluster: Cluster | None, tracker: Tracker) -> tuple[Trained, Splits, Devices]:
    import tensorflow as tf

    from trainer.runs.checkpoint import Checkpoints, is_trained
    from trainer.runs.signals import deferred_stop
    from trainer.training.distribute import choose_devices, peers_may_be_lost
    from trainer.training.loop import Hooks, train
    from trainer.training.model import weights_digest
    from trainer.training.train_state import REVISION

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
        sizes = (
            f"{len(splits.train):,} training, {len(splits.validation):,} validation, {len(splits.test):,} test digits"
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
                trained = train(config, splits.train, splits.validation, devices, hooks, initial)
        finally:
            checkpoints.wait()  # A checkpoint that is half written is finished, however training ended.
    return trained, splits, devices


def load_data(config: TrainConfig) -> Splits:
    """The splits of the config's data set, with the pen's digits and the extra pictures mixed in."""
    from trainer.data.load import Extra, load_splits

    extra = Extra(config.extra_data, config.extra_weight) if config.extra_data else None
    return load_splits(config.dataset, config.data_path, config.validation_size, config.pen_weight, extra)


def _reload(config: TrainConfig, result: RunResult, console: Console) -> Candidate:
    """The candidate of a run that was trained before, from its saved weights."""
    weights = config.run_dir / WEIGHTS_FILE
    if not weights.is_file():
        raise ConfigError(f"{config.run_dir}: this run was not trained to its end ({WEIGHTS_FILE} is missing)")
    with console.phase("Loading TensorFlow"):
        from trainer.training.distribute import ONE_DEVICE, choose_devices
        from trainer.training.model import build_model

    choose_devices(ONE_DEVICE)
    trained = read_result(config.run_dir / RESULT_FILE) or read_result(config.run_dir / TRIAL_FILE) or RunResult()
    model = build_model(config.model, width=config.width, dropout=config.dropout)
    model.load_weights(weights)
    splits = load_data(config)
    _refuse_other_data(config.run_dir, trained.data, splits.digests)
    result.facts = {**trained.facts, "test split": f"scored again from the saved weights on {_utc_now()}"}
    result.environment, result.data = trained.environment, splits.digests
    return _evaluate(config, model, splits, result, console)


def _refuse_other_data(run_dir: Path, trained: dict[str, str], now: dict[str, str]) -> None:
    """Refuse to score a run on other data: its new test split may hold examples that it was trained on.

    Raises:
        DataError: naming the parts that differ.
    """
    if different := [part for part, digest in now.items() if trained.get(part, digest) != digest]:
        from trainer.data.split import DataError

        raise DataError(
            f"{run_dir}: the {', '.join(different)} data is not what this run was trained with; give it the same data "
            "(--data-dir in its config.json), or train again"
        )


def _latest_result(config: TrainConfig) -> RunResult:
    """How the last command that could publish this run ended."""
    results = (read_result(config.run_dir / name) for name in (RESULT_FILE, TRIAL_FILE, PUBLISH_FILE))
    latest = max((result for result in results if result), key=lambda result: result.finished, default=RunResult())
    if not latest.outcome:  # of a trial, or written before results had an outcome
        version = latest.published.get("version")
        latest.outcome = f"Published as version {version}." if version else "Trained; not published yet."
        if latest.exit_code != ExitCode.OK:
            latest.outcome = f"Not published: {latest.message}"
    return latest


def _evaluate(
    config: TrainConfig, model: keras.Model, splits: Splits, result: RunResult, console: Console
) -> Candidate:
    import tensorflow as tf

    # TensorFloat-32, the default on newer GPUs, keeps three digits: too few for the check of the exported files.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    with console.phase(f"Evaluating on {len(splits.test):,} test digits"), memory_errors_explained():
        evaluation = _score(model, splits.validation, splits.test)
    result.evaluation = evaluation.summary()
    if splits.extra:
        held_out = _score(model, splits.validation, splits.extra)
        result.extra = held_out.summary()
        right = int((held_out.digits == held_out.labels).sum())
        result.facts["extra pictures"] = (
            f"{config.extra_data}, {config.extra_weight:.0%} of the training examples; "
            f"{right} of the {len(splits.extra)} held-out ones are right"
        )
    write_atomically(config.run_dir / PREDICTIONS_FILE, evaluation.save)
    return Candidate(config, model, splits, result.facts, evaluation)


def _score(model: keras.Model, validation: Split, split: Split) -> Evaluation:
    """Score the model on `split`, with the temperature that fits `validation`."""
    from trainer.evaluation.metrics import compile_predict, evaluate, fit_temperature

    predict = compile_predict(model)
    temperature = fit_temperature(predict(validation.images), validation.labels)
    return evaluate(predict, split, temperature)


def _publish_and_report(candidate: Candidate, result: RunResult, console: Console, *, once: bool = False) -> None:
    """Publish unless the config says not to, and report the outcome; `once`: not if this very model was published."""
    from trainer.publishing.gate import GateError

    try:
        result.outcome = _publish(candidate, result, console, once=once)
    except Exception as error:
        if isinstance(error, GateError) and error.verdict:
            result.gate = error.verdict.to_json()
        result.outcome = f"Not published: {error}"
        _report(candidate, result, console, succeeded=False)
        raise
    _report(candidate, result, console, succeeded=True)


def _publish(candidate: Candidate, result: RunResult, console: Console, *, once: bool) -> str:
    from trainer.evaluation.model_card import model_card
    from trainer.publishing.gate import Gate
    from trainer.publishing.publish import find_published, publish
    from trainer.publishing.versions import RETIRED_SUFFIX
    from trainer.training.model import weights_digest

    config = candidate.config
    if not config.publish:
        return "Trained; not published, as --no-publish says."
    identity = {"run": config.run, "weights": weights_digest(candidate.model)}
    if once and (folder := find_published(config.model_dir, identity)):
        # An earlier attempt was stopped after it had published.
        result.published = {"version": int(folder.name.removesuffix(RETIRED_SUFFIX)), "folder": str(folder)}
        again = f"; `python -m trainer publish {config.run_dir}` publishes it again"
        return f"Published before, in {folder}{again if folder.name.endswith(RETIRED_SUFFIX) else ''}."
    published = publish(
        candidate.model,
        candidate.evaluation,
        candidate.splits.test,
        model_dir=config.model_dir,
        gate=Gate(
            min_accuracy=config.min_accuracy,
            tolerance=config.tolerance,
            significance=config.significance,
            allow_other_data=config.allow_other_data,
        ),
        now=datetime.now(UTC),
        metadata={
            **identity,
            "facts": candidate.facts,
            "model_card": model_card(_story(candidate, result, succeeded=True), candidate.evaluation),
        },
        keep_versions=config.keep_versions,
        console=console,
    )
    result.gate = published.verdict.to_json()
    result.published = {"version": published.version, "folder": str(published.folder), "check": published.check}
    before = f"; before it: {published.served_before}" if published.served_before else ""
    return f"Published as version {published.version} in {published.folder}{before}."


def _tracker(
    config: TrainConfig, console: Console, on_validation: Callable[[int, float], None] | None = None
) -> RunTracker:
    with console.phase("Loading TensorFlow"):
        from trainer.runs.tracking import RunTracker

    texts = {"config": dataclasses.asdict(config), "environment": describe_environment()}
    return RunTracker(config.run_dir, console, texts, what_it_computes(config), on_validation)


def _show_in_tensorboard(candidate: Candidate, tracker: RunTracker, step: int) -> None:
    from trainer.evaluation.board import show_batch, show_evaluation
    from trainer.training.augment import first_batch

    tracker.board.graph(candidate.model)
    show_batch(tracker.board, first_batch(candidate.splits.train, candidate.config))
    show_evaluation(tracker.board, candidate.evaluation, candidate.splits.test, candidate.model, step)


def _facts(config: TrainConfig, splits: Splits, trained: Trained, devices: Devices) -> dict[str, str]:
    shared = f" and those of {len(devices.cluster.peers)} other worker(s)" if devices.cluster else ""
    sizes = (len(part) for part in (splits.train, splits.validation, splits.test))
    return {
        "data set": "{}: {:,} training, {:,} validation, {:,} test digits".format(config.dataset, *sizes),
        **({"pen": f"draws {config.pen_weight:.0%} of the training digits"} if config.pen_weight else {}),
        "network": f"{config.model}, {trained.model.count_params():,} parameters",
        **({"initial weights": f"of {config.init_from}, with a new optimizer"} if config.init_from else {}),
        "training": f"{trained.steps:,} steps of {config.global_batch_size} in {trained.seconds:.1f} s, "
        f"{trained.steps * config.global_batch_size / trained.seconds:,.0f} images/s",
        "devices": f"{', '.join(devices.names)}{shared} ({config.precision})",
        "memory": f"{_peak_memory_bytes(devices) / 2**30:.2f} GiB at most",
        "finished": _utc_now(),
        "test split": "scored once, after training",
    }


def _report(candidate: Candidate, result: RunResult, console: Console, *, succeeded: bool) -> None:
    """Write figures, report and model card, and print the scores and where everything is.

    The outcome of a failure is left to the error that `trainer/cli.py` prints.
    """
    from trainer.evaluation.figures import save_figures
    from trainer.evaluation.model_card import write_model_card
    from trainer.evaluation.report import write_report
    from trainer.runs.tracking import read_rows

    config, evaluation = candidate.config, candidate.evaluation
    story = _story(candidate, result, succeeded=succeeded)
    try:
        with console.phase("Drawing the report"):
            rows, images = read_rows(config.run_dir), candidate.splits.test.images
            save_figures(config.run_dir / "figures", rows, evaluation, images)
            write_report(config.run_dir / "report.html", story, evaluation, images, rows)
            write_model_card(config.run_dir / "model_card.md", story, evaluation)
    except OSError as error:
        # A version may be live by now: a page that cannot be written must not look like a failure to publish.
        print(f"warning: cannot write the report: {error}", file=sys.stderr)
    low, high = evaluation.accuracy_interval
    text = f"Test accuracy {percent(evaluation.accuracy)} (95 % interval {percent(low)} to {percent(high)})."
    console.note(text, test_accuracy=evaluation.accuracy, test_accuracy_interval_95=[low, high])
    if extra := candidate.facts.get("extra pictures"):
        console.note(f"Extra pictures: {extra}.", extra=result.extra)
    if succeeded:
        console.note(result.outcome, style="bold green", published=result.published)
    for name, place in (
        ("Report", config.run_dir / "report.html"),
        ("Figures", config.run_dir / "figures"),
        ("TensorBoard", f"tensorboard --logdir {config.artifacts / 'runs'}"),
    ):
        console.note(f"{name + ':':<12} {place}")


def _story(candidate: Candidate, result: RunResult, *, succeeded: bool) -> Story:
    from trainer.evaluation.report import Story

    return Story(
        config=candidate.config,
        outcome=result.outcome,
        succeeded=succeeded,
        facts=candidate.facts,
        gate=result.gate,
        environment=result.environment,
        digests=result.data,
    )


def _peak_memory_bytes(devices: Devices) -> int:
    """The most memory that the process has used; with GPUs, the most memory of a GPU."""
    import tensorflow as tf

    gpus = [name for name in devices.names if name.startswith("GPU")]
    if gpus:
        return max(tf.config.experimental.get_memory_info(name)["peak"] for name in gpus)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def _utc_now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
