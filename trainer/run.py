"""The story of a run: data -> training -> evaluation -> report -> publishing.

`train_run` tells it from the first decision to the last line; the functions below it are its steps. A run has a folder,
<artifacts>/runs/<run>/, with config.json, checkpoints/, metrics.jsonl, tensorboard/, model.weights.h5, figures/,
report.html, model_card.md and result.json, which says how the run ended, also when it failed.

Steps import TensorFlow themselves: a wrong setting or folder is reported before the seconds that the import takes.
"""

from __future__ import annotations

import dataclasses
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from serving.contract import MODEL_NAME
from trainer.config import TrainConfig, to_json, what_it_computes
from trainer.errors import ConfigError
from trainer.runs.atomic import write_atomically
from trainer.runs.folder import open_run_folder, refuse_full_disk
from trainer.runs.result import EVALUATE_FILE, PUBLISH_FILE, RESULT_FILE, TRIAL_FILE, RunResult, read_result, recorded
from trainer.training.cluster import Cluster, find_cluster, wait_for_peers

if TYPE_CHECKING:
    import keras

    from trainer.data.split import Split, Splits
    from trainer.evaluation.metrics import Evaluation
    from trainer.runs.tracking import Tracker
    from trainer.training.distribute import Devices
    from trainer.training.loop import Trained

WEIGHTS_FILE = "model.weights.h5"


@dataclass(frozen=True)
class Candidate:
    """A trained and evaluated model, on its way to the gate."""

    config: TrainConfig
    model: keras.Model
    splits: Splits
    facts: dict[str, str]
    evaluation: Evaluation
    """On the test split."""
    figures: list[Path]


def train_run(config: TrainConfig, now: datetime, environment: Mapping[str, str]) -> None:
    """Train a model, score it on unseen data, report, and publish it if it passes the gate.

    Args:
        config: what to compute and where to write; an empty run name is filled in.
        now: the time that names the run and numbers the version.
        environment: as in os.environ; it names the other workers, if there are any.

    Raises:
        RunError: see trainer/errors.py.
    """
    cluster = find_cluster(environment)
    if cluster and not config.run:
        raise ConfigError("several workers need one --run NAME, the same for all; none was given")
    if cluster and not cluster.is_chief:
        _train_as_worker(config, cluster)
        return
    with open_run_folder(config, now) as config, recorded(config.run_dir / RESULT_FILE, now) as result:
        refuse_full_disk(config.run_dir)
        from trainer.runs.tracking import RunTracker

        with RunTracker(config.run_dir, texts={"config": to_json(config)}) as tracker:
            trained, splits, devices = _train(config, cluster, tracker)
            write_atomically(config.run_dir / WEIGHTS_FILE, trained.model.save_weights)
            tracker.graph(trained.model)
            result.facts, result.data = _facts(config, splits, trained, devices), splits.digests
            candidate = _evaluate(config, trained.model, splits, result, tracker.rows)
            tracker.pictures(candidate.figures, step=trained.steps)
        _publish_and_report(candidate, now, result, once=True)


def train_trial(config: TrainConfig, now: datetime) -> RunResult:
    """Train a model and score it on validation data alone, for a search. The run can be published afterwards.

    Args:
        config: with the name of the run, whose folder is open.
        now: when the trial started.

    Returns:
        What trial.json holds.

    Raises:
        RunError: see trainer/errors.py.
    """
    from trainer.runs.tracking import RunTracker

    with recorded(config.run_dir / TRIAL_FILE, now) as result:
        with RunTracker(config.run_dir, texts={"config": to_json(config)}) as tracker:
            trained, splits, devices = _train(config, None, tracker)
        write_atomically(config.run_dir / WEIGHTS_FILE, trained.model.save_weights)
        result.facts, result.data = _facts(config, splits, trained, devices), splits.digests
        # Temperature scaling as in serving: an over-confident recipe is not worse for it.
        result.validation = _score(trained.model, splits.validation, splits.validation).summary()
    return result


def evaluate_run(config: TrainConfig, now: datetime) -> None:
    """Score a trained run's weights on its test split again and redraw its report.

    Raises:
        RunError: the run has no weights, or its data cannot be read.
    """
    with recorded(config.run_dir / EVALUATE_FILE, now) as result:
        candidate = _reload(config, result)
        _report(candidate, "Evaluated again from the saved weights.", succeeded=True)


def publish_run(config: TrainConfig, now: datetime) -> None:
    """Publish a trained run's weights if they pass the gate.

    Raises:
        RunError: the run has no weights, or the gate or the check of the exported files refused it.
    """
    with recorded(config.run_dir / PUBLISH_FILE, now) as result:
        candidate = _reload(config, result)
        _publish_and_report(candidate, now, result)


def _train_as_worker(config: TrainConfig, cluster: Cluster) -> None:
    """Train together with the chief; the chief alone evaluates, writes and publishes."""
    from trainer.runs.checkpoint import is_trained
    from trainer.runs.tracking import Tracker

    if not is_trained(config.run_dir):
        _train(config, cluster, Tracker())


def _train(config: TrainConfig, cluster: Cluster | None, tracker: Tracker) -> tuple[Trained, Splits, Devices]:
    import tensorflow as tf

    from trainer.data.load import load_splits
    from trainer.runs.checkpoint import Checkpoints, is_trained
    from trainer.runs.signals import deferred_stop
    from trainer.training.distribute import choose_devices, peers_may_be_lost
    from trainer.training.loop import Hooks, train

    if is_trained(config.run_dir):
        cluster = None  # Nothing is left to train together: the other workers have exited.
    if cluster:
        wait_for_peers(cluster, config.peer_timeout_seconds)
    with peers_may_be_lost(cluster):
        devices = choose_devices(config.strategy, config.replicas, jit_compile=config.jit_compile, cluster=cluster)
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        splits = load_splits(config.dataset, config.data_path, config.validation_size)
        checkpoints = Checkpoints(
            config.run_dir,
            {**what_it_computes(config), **{f"{part} data": digest for part, digest in splits.digests.items()}},
            every_seconds=config.checkpoint_seconds,
            every_steps=config.checkpoint_steps,
            keep=config.checkpoints_kept,
            before_write=tracker.sync,
        )
        try:
            with deferred_stop() as stop_requested:
                hooks = Hooks(tracker=tracker, checkpoints=checkpoints, stop_requested=stop_requested)
                trained = train(config, splits.train, splits.validation, devices, hooks)
        finally:
            checkpoints.wait()  # A checkpoint that is half written is finished, however training ended.
    return trained, splits, devices


def _reload(config: TrainConfig, result: RunResult) -> Candidate:
    """The candidate of a run that was trained before, from its saved weights."""
    weights = config.run_dir / WEIGHTS_FILE
    if not weights.is_file():
        raise ConfigError(f"{config.run_dir}: this run was not trained to its end ({WEIGHTS_FILE} is missing)")
    from trainer.data.load import load_splits
    from trainer.runs.tracking import read_rows
    from trainer.training.distribute import choose_devices
    from trainer.training.model import build_model

    choose_devices()
    earlier = read_result(config.run_dir / RESULT_FILE) or read_result(config.run_dir / TRIAL_FILE) or RunResult()
    model = build_model(config.model, width=config.width, dropout=config.dropout)
    model.load_weights(weights)
    splits = load_splits(config.dataset, config.data_path, config.validation_size)
    result.facts, result.data = earlier.facts, splits.digests
    return _evaluate(config, model, splits, result, read_rows(config.run_dir))


def _evaluate(
    config: TrainConfig, model: keras.Model, splits: Splits, result: RunResult, rows: list[dict]
) -> Candidate:
    import tensorflow as tf

    from trainer.evaluation.figures import save_figures

    # TensorFloat-32, the default on newer GPUs, keeps three digits: too few for the check of the exported files.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    evaluation = _score(model, splits.validation, splits.test)
    result.evaluation = evaluation.summary()
    figures = save_figures(config.run_dir / "figures", rows, evaluation, splits.test.images)
    return Candidate(config, model, splits, result.facts, evaluation, figures)


def _score(model: keras.Model, validation: Split, split: Split) -> Evaluation:
    """Score the model on `split`, with the temperature that fits `validation`."""
    from trainer.evaluation.metrics import compile_predict, evaluate, fit_temperature

    predict = compile_predict(model)
    temperature = fit_temperature(predict(validation.images), validation.labels)
    return evaluate(predict, split, temperature)


def _publish_and_report(candidate: Candidate, now: datetime, result: RunResult, *, once: bool = False) -> None:
    """Publish unless the config says not to, and report the outcome; `once`: not if this very model was published."""
    try:
        outcome = _publish(candidate, now, result, once=once)
    except Exception as error:
        _report(candidate, f"Not published: {error}", succeeded=False)
        raise
    _report(candidate, outcome, succeeded=True)


def _publish(candidate: Candidate, now: datetime, result: RunResult, *, once: bool) -> str:
    from trainer.publishing.publish import Gate, find_published, publish
    from trainer.publishing.versions import RETIRED_SUFFIX
    from trainer.training.model import weights_digest

    config = candidate.config
    if not config.publish:
        return "Trained; not published, as --no-publish says."
    model_dir = config.models_dir / MODEL_NAME
    identity = {"run": config.run, "weights": weights_digest(candidate.model)}
    if once and (folder := find_published(model_dir, identity)):
        # An earlier attempt was stopped after it had published.
        result.published = {"version": int(folder.name.removesuffix(RETIRED_SUFFIX)), "folder": str(folder)}
        again = f"; `python -m trainer publish {config.run_dir}` publishes it again"
        return f"Published before, in {folder}{again if folder.name.endswith(RETIRED_SUFFIX) else ''}."
    published = publish(
        candidate.model,
        candidate.evaluation,
        candidate.splits.test,
        model_dir=model_dir,
        gate=Gate(min_accuracy=config.min_accuracy, tolerance=config.tolerance),
        now=now,
        metadata={**identity, "facts": candidate.facts, "test_fingerprint": candidate.splits.test.fingerprint},
    )
    result.published = {"version": published.version, "folder": str(published.folder), "check": published.check}
    before = f"; before it: {published.served_before}" if published.served_before else ""
    return f"Published as version {published.version} in {published.folder}{before}."


def _facts(config: TrainConfig, splits: Splits, trained: Trained, devices: Devices) -> dict[str, str]:
    import tensorflow as tf

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


def _report(candidate: Candidate, outcome: str, *, succeeded: bool) -> None:
    """Write the report and the model card, and print the outcome and where everything is."""
    from trainer.evaluation.metrics import percent
    from trainer.evaluation.report import Story, write_model_card, write_report

    config, evaluation = candidate.config, candidate.evaluation
    story = Story(config.run, outcome, succeeded, candidate.facts, dataclasses.asdict(config))
    try:
        write_report(config.run_dir / "report.html", story, evaluation, candidate.figures)
        write_model_card(config.run_dir / "model_card.md", story, evaluation)
    except OSError as error:
        # A version may be live by now: a page that cannot be written must not look like a failure to publish.
        print(f"warning: cannot write the report: {error}", file=sys.stderr)
    low, high = evaluation.accuracy_interval
    print(f"Test accuracy {percent(evaluation.accuracy)} (95 % interval {percent(low)} to {percent(high)}).")
    print(outcome)
    print(f"Report:      {config.run_dir / 'report.html'}")
    print(f"Figures:     {config.run_dir / 'figures'}")
    print(f"TensorBoard: tensorboard --logdir {config.artifacts / 'runs'}", flush=True)
