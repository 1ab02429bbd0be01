"""One function for each command of `python -m trainer`: it takes the parsed arguments and calls what does the work.

`trainer/cli.py` parses the arguments, and `trainer/run.py` tells what `train` does. TensorFlow is imported only by the
commands that need it.
"""

import argparse
import dataclasses
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.command_line import command_line
from trainer.config import TrainConfig, resolve
from trainer.errors import ConfigError
from trainer.runs.console import Console
from trainer.training.cluster import find_cluster

VARIED = ("learning_rate=1e-3:1e-2:log", "dropout=0:0.5", "width=0.5:2:log")
"""What `tune` varies unless `--vary` says otherwise."""

SEARCH_OPTIONS = ("trials", "sampler", "prune", "jobs", "finalists", "seeds")
"""The flags of `tune` that are fields of `SearchOptions`."""

PUBLISH_SETTINGS = (
    "min_accuracy", "tolerance", "significance", "allow_other_data", "keep_versions", "models_dir", "model_name",
)  # fmt: skip
"""What `publish` may set otherwise than the run's config does."""

FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}


def train(args: argparse.Namespace, console: Console) -> None:
    """Train a run, or several that differ in the seed."""
    if "seeds" in args:
        _train_seeds(args, console)
        return
    from trainer.run import train_run

    train_run(config_of(args), datetime.now(UTC), os.environ, console)


def _train_seeds(args: argparse.Namespace, console: Console) -> None:
    from trainer.seeds import train_seeds

    if find_cluster(os.environ):
        raise ConfigError("--seeds runs on one machine; start it outside of TF_CONFIG and of an Indexed Job")
    if getattr(args, "publish", False):
        raise ConfigError(
            "--seeds with --publish: expected one of them; `publish` publishes one of the runs afterwards"
        )
    train_seeds(config_of(args), args.seeds, datetime.now(UTC), args.log_format, console)


def learn(args: argparse.Namespace, console: Console) -> None:
    """Train the served version further on corrected pictures, and publish it if it passes the gate."""
    from trainer.learn import learn as learn_from

    flags = {name: value for name, value in vars(args).items() if name in FIELDS}
    learn_from(args.corrections, flags, args.config, datetime.now(UTC), os.environ, console)


def tune(args: argparse.Namespace, console: Console) -> None:
    """Train with many settings and compare them on validation data; the test split is not used."""
    from trainer.tuning.options import SearchOptions
    from trainer.tuning.search_space import check_values, parse  # numpy: not for `--help`

    now, config = datetime.now(UTC), config_of(args)
    if find_cluster(os.environ):
        raise ConfigError("tune runs on one machine; start it outside of TF_CONFIG and of an Indexed Job")
    options = SearchOptions(**{name: getattr(args, name) for name in SEARCH_OPTIONS})
    dimensions = [parse(text) for text in args.vary or VARIED]
    check_values(config, dimensions)
    config = dataclasses.replace(config, run=config.run or f"tune-{config.preset}-{now:%Y%m%d-%H%M%S}")
    try:
        from trainer.tuning.search import Search, report
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ConfigError("tune needs Optuna, which is not installed: pip install '.[tune]'") from error

    console.note(f"search {config.run}: after a stop, the same command with --run {config.run} resumes it")
    search = Search(config, dimensions, options, console)
    ranked = search.run(args.log_format)
    report(search, ranked, console)
    console.note(f"{'Publish:':<12} {command_line('publish', ranked[0].run_dir)}")


def evaluate(args: argparse.Namespace, console: Console) -> None:
    """Score a trained run on its test split again and draw its report."""
    from trainer.run import evaluate_run

    evaluate_run(_config_of_run(args.run_dir), datetime.now(UTC), console)


def publish(args: argparse.Namespace, console: Console) -> None:
    """Publish a trained run's model if it passes the gate."""
    from trainer.run import publish_run

    flags = {name: value for name, value in vars(args).items() if name in PUBLISH_SETTINGS}
    config = _config_of_run(args.run_dir, publish=True, **flags)
    if "artifacts" in args:
        config = dataclasses.replace(
            config,
            models_dir=flags.get("models_dir", args.artifacts / "models"),
            data_dir=config.data_dir or args.artifacts / "data",
        )
    publish_run(config, datetime.now(UTC), console)


def runs(args: argparse.Namespace, console: Console) -> None:
    """List the runs: state, accuracy, time, and the version that each was published as."""
    from trainer.runs.listing import list_runs, text_of

    folder = args.artifacts / "runs"
    runs = list_runs(folder)
    text = text_of(runs) if runs else f"no run in {folder}; `{command_line('train')}` makes one"
    console.note(text, runs=[dataclasses.asdict(run) for run in runs])


def compare(args: argparse.Namespace, console: Console) -> None:
    """Compare trained runs on the same test digits: a table here, and a page with curves and pictures."""
    with console.phase("Loading TensorFlow"):
        from trainer.evaluation.compare import comparison_text, read_runs, write_comparison

    named = (args.artifacts / "runs" / run for run in args.runs)
    runs = read_runs([path if path.is_dir() else Path(run) for path, run in zip(named, args.runs, strict=True)])
    console.note(comparison_text(runs))
    page = args.page or args.artifacts / "comparison.html"
    with console.phase("Drawing the page"):
        write_comparison(page, runs)
    console.note(f"\nPage: {page}")


def rollback(args: argparse.Namespace, console: Console) -> None:
    """Retire a version by renaming it: the server then serves the newest one that is left."""
    from trainer.publishing.versions import roll_back

    retired, served = roll_back(_model_dir(args), args.version, allow_none=args.allow_none)
    console.note(f"retired version {retired}; now served: {served if served is not None else 'nothing'}")


def data_prepare(args: argparse.Namespace, console: Console) -> None:
    """Prepare MNIST with tensorflow-datasets."""
    from trainer.data.mnist import prepare_mnist

    data_dir = args.data_dir or args.artifacts / "data"
    prepare_mnist(data_dir)
    console.note(f"MNIST is prepared in {data_dir}")


def data_verify(args: argparse.Namespace, console: Console) -> None:
    """Check counts, shapes, labels, checksums and overlap (prepares MNIST first if it is missing)."""
    from trainer.data.load import read_dataset

    train, test = read_dataset(args.dataset, args.data_dir or args.artifacts / "data")
    console.note(f"{args.dataset}: {len(train):,} training and {len(test):,} test examples are sound and disjoint")


def data_samples(args: argparse.Namespace, console: Console) -> None:
    """Write some test digits as PNG files, to try a served model with."""
    if args.count < 1:
        raise ConfigError(f"--count is {args.count}; expected a number above 0")
    from trainer.data.load import read_dataset
    from trainer.data.samples import write_samples

    _, test = read_dataset(args.dataset, args.data_dir or args.artifacts / "data")
    for path in write_samples(test, args.folder, args.count):
        console.note(str(path))


def doctor(args: argparse.Namespace, console: Console) -> None:
    """Check this machine before a run; problems come first."""
    from trainer.doctor import Level, examine

    findings = examine(args.artifacts, args.data_dir or args.artifacts / "data", _model_dir(args), os.environ)
    for finding in findings:
        style = {Level.PROBLEM: "bold red", Level.WARNING: "yellow"}.get(finding.level, "")
        console.note(f"{finding.level:<8} {finding.topic:<8} {finding.text}", style=style)
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    if problems:
        raise ConfigError(f"{problems} problem(s), above")


def config_of(args: argparse.Namespace) -> TrainConfig:
    """Return the config that preset, file and flags give together."""
    flags = {name: value for name, value in vars(args).items() if name in FIELDS and name != "preset"}
    return resolve(args.preset, args.config, flags)


def _config_of_run(folder: Path, **flags: Any) -> TrainConfig:
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: no run (config.json is missing); expected <artifacts>/runs/<run>")
    # The run may have been moved or mounted elsewhere since it was trained: its folder's place counts. Links are not
    # resolved: where runs/ is a link, the models are still beside it and not beside its target.
    place = Path(os.path.abspath(folder))  # noqa: PTH100  (Path.resolve follows links, Path.absolute keeps "..")
    return resolve(file=folder / "config.json", flags={"artifacts": place.parent.parent, "run": place.name, **flags})


def _model_dir(args: argparse.Namespace) -> Path:
    return TrainConfig(artifacts=args.artifacts, models_dir=args.models_dir, model_name=args.model_name).model_dir
