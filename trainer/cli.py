"""The command line: `python -m trainer train | tune | evaluate | publish | rollback | doctor | data`.

    python -m trainer train                   # the embedded digits, seconds, no download
    python -m trainer train --preset fast     # MNIST to 99 % as soon as possible
    python -m trainer rollback                # back to the version before

TensorFlow is imported only by the command that needs it, so `--help` answers at once.
"""

import argparse
import dataclasses
import os
import shlex
import sys
import traceback
import types
import typing
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from serving.contract import MODEL_NAME
from trainer.config import ConfigError, TrainConfig, resolve
from trainer.errors import ExitCode, RunError, exit_code_of
from trainer.presets import PRESETS
from trainer.runs.folder import RESULT_FILE, open_run_folder, recorded, refuse_full_disk
from trainer.runs.signals import StoppedError, stoppable
from trainer.training.cluster import find_cluster

VARIED = ("learning_rate=1e-3:1e-2:log", "dropout=0:0.5", "width=0.5:2:log")
"""What `tune` varies unless told."""

CONFIG_FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig) if field.name != "preset"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status (see `trainer.errors`)."""
    args = _parser().parse_args(arguments)
    try:
        with stoppable():
            args.command(args)
    except (RunError, OSError, StoppedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code_of(error)
    except BaseException as error:
        traceback.print_exception(error)
        return exit_code_of(error)
    return ExitCode.OK


def _train(args: argparse.Namespace) -> None:
    # What is wrong with a config or a folder shows before the seconds that importing TensorFlow takes.
    now, config, cluster = datetime.now(UTC), _config(args), find_cluster(os.environ)
    if cluster and not config.run:
        raise ConfigError("several workers need one --run NAME, the same for all; none was given")
    if cluster and not cluster.is_chief:
        from trainer.run import train_with_chief

        train_with_chief(config, cluster)
        return
    with open_run_folder(config, now) as config, recorded(config.run_dir / RESULT_FILE, now) as record:
        refuse_full_disk(config.run_dir)
        from trainer.run import train_and_publish

        train_and_publish(config, cluster, now, record)


def _tune(args: argparse.Namespace) -> None:
    from trainer.tuning.search_space import parse, plan  # numpy: not for `--help`

    now, config = datetime.now(UTC), _config(args)
    if find_cluster(os.environ):
        raise ConfigError("tune runs on one machine; start it outside of TF_CONFIG and of an Indexed Job")
    if args.trials < 1:
        raise ConfigError(f"trials is {args.trials}; expected a number above 0")
    dimensions = [parse(text) for text in args.vary or VARIED]
    named = dataclasses.replace(config, run=config.run or f"tune-{config.preset}-{now:%Y%m%d-%H%M%S}")
    configs, folder = plan(named, dimensions, args.trials), named.artifacts / "tune" / named.run
    from trainer.tuning.search import search, table

    print(f"search {named.run}: start it again with --run {named.run}, and it goes on where it was")
    trials = search(configs, dimensions, folder, now)
    print(f"\n{table(trials)}\n")
    print(f"Figure:  {folder / 'trials.png'}")
    print(f"Publish: python -m trainer publish {shlex.quote(str(trials[0].run_dir))}")


def _evaluate(args: argparse.Namespace) -> None:
    config = _config_of_run(args.run_dir)
    with recorded(args.run_dir / "evaluate.json", datetime.now(UTC)) as record:
        from trainer.run import evaluate_run

        evaluate_run(config, record)


def _publish(args: argparse.Namespace) -> None:
    gate = {name: value for name in ("min_accuracy", "tolerance") if (value := getattr(args, name)) is not None}
    now, config = datetime.now(UTC), _config_of_run(args.run_dir, **gate, publish=True)
    with recorded(args.run_dir / "publish.json", now) as record:
        from trainer.run import publish_run

        publish_run(config, now, record)


def _rollback(args: argparse.Namespace) -> None:
    from trainer.publishing.versions import roll_back

    retired, served = roll_back(args.artifacts / "models" / MODEL_NAME, allow_none=args.allow_none)
    print(f"retired version {retired}; now served: {served if served is not None else 'nothing'}")


def _data_prepare(args: argparse.Namespace) -> None:
    from trainer.data.mnist import prepare_mnist

    data_dir = args.data_dir or args.artifacts / "data"
    prepare_mnist(data_dir)
    print(f"MNIST is prepared in {data_dir}")


def _data_verify(args: argparse.Namespace) -> None:
    from trainer.data.load import load_splits

    splits = load_splits(args.dataset, args.data_dir or args.artifacts / "data", validation_size=1)
    print(
        f"{args.dataset}: {len(splits.train) + 1:,} training and {len(splits.test):,} test examples are sound and disjoint"
    )


def _data_samples(args: argparse.Namespace) -> None:
    from trainer.data.load import read_dataset
    from trainer.data.samples import write_samples

    _, test = read_dataset(args.dataset, args.data_dir or args.artifacts / "data")
    for path in write_samples(test, args.folder, args.count):
        print(path)


def _doctor(args: argparse.Namespace) -> None:
    from trainer.doctor import Level, examine

    findings = examine(args.artifacts, args.data_dir or args.artifacts / "data", os.environ)
    for finding in findings:
        print(f"{finding.level:<8} {finding.topic:<8} {finding.text}")
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    if problems:
        raise ConfigError(f"{problems} problem(s), above")


def _config(args: argparse.Namespace) -> TrainConfig:
    flags = {name: value for name, value in vars(args).items() if name in CONFIG_FIELDS}
    return resolve(args.preset, args.config, flags)


def _config_of_run(folder: Path, **flags: Any) -> TrainConfig:
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: no run (config.json is missing); expected <artifacts>/runs/<run>")
    # The run may have been moved, or mounted elsewhere, since it was trained: it lies where it lies now.
    place = {"artifacts": folder.resolve().parent.parent, "run": folder.resolve().name}
    return resolve(file=folder / "config.json", flags={**place, **flags})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train a digit recogniser and hand it to TensorFlow Serving.",
        epilog="exit status: "
        + "; ".join(f"{code.value} {code.name.lower()}" for code in ExitCode)
        + ". What each means: trainer/errors.py.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_tune(commands)

    for name, command, text in (
        ("evaluate", _evaluate, "score a trained run on its test split again and draw its report"),
        ("publish", _publish, "publish a trained run's model, if it passes the gate"),
    ):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of the run: <artifacts>/runs/<run>")
        sub.set_defaults(command=command)
    # To `publish` alone:
    for flag in ("min_accuracy", "tolerance"):
        sub.add_argument(_flag(flag), type=float, help=_help_of(flag) + " (default: as in the run's config)")

    sub = commands.add_parser("rollback", help="retire the newest version by renaming it")
    _add_paths(sub, data=False)
    sub.add_argument("--allow-none", action="store_true", help="even if nothing is served then")
    sub.set_defaults(command=_rollback)

    sub = commands.add_parser("doctor", help="what a run would find on this machine, problems first")
    _add_paths(sub)
    sub.set_defaults(command=_doctor)

    data = commands.add_parser("data", help="prepare MNIST, verify a data set, or take pictures from one")
    actions = data.add_subparsers(required=True, metavar="COMMAND")
    sub = actions.add_parser("prepare", help="have tensorflow-datasets prepare MNIST")
    _add_paths(sub)
    sub.set_defaults(command=_data_prepare)
    sub = actions.add_parser(
        "verify", help="check counts, shapes, labels, checksums and overlap (prepares MNIST first if it is not there)"
    )
    _add_paths(sub)
    _add_dataset(sub, default="mnist")
    sub.set_defaults(command=_data_verify)
    sub = actions.add_parser("samples", help="write some test digits as PNG files, to try a served model with")
    sub.add_argument("folder", type=Path, metavar="FOLDER", help="where to write them")
    sub.add_argument("--count", type=int, default=10, help="how many [10]")
    _add_paths(sub)
    _add_dataset(sub, default="optdigits")
    sub.set_defaults(command=_data_samples)
    return parser


def _add_train(commands: Any) -> None:
    sub = commands.add_parser(
        "train",
        help="train, evaluate, report and publish",
        description="Train, evaluate, report and publish. Precedence: preset < --config FILE < flags.",
        argument_default=argparse.SUPPRESS,
    )
    _add_config(sub)
    sub.set_defaults(command=_train)


def _add_tune(commands: Any) -> None:
    text = "train with many settings and compare them on validation data; the test split is not looked at"
    sub = commands.add_parser("tune", help=text, description=text, argument_default=argparse.SUPPRESS)
    sub.add_argument(
        "--vary",
        nargs="+",
        action="extend",
        default=None,
        metavar="NAME=VALUES",
        help="what each trial draws anew: A,B,C for one of them, LOW:HIGH for a number between, LOW:HIGH:log for one on a "
        f"logarithmic scale (default: {' '.join(VARIED)})",
    )
    sub.add_argument("--trials", type=int, default=12, help="how many; the first has the settings as given [12]")
    sub.add_argument(
        "--run",
        help="name of the search, whose trials are the runs <run>-000 and so on; that of one that was begun goes on with "
        "it (default: tune-<preset>-<UTC time>)",
    )
    _add_config(sub, without={"run", "publish"})
    sub.set_defaults(command=_tune)


def _add_config(sub: argparse.ArgumentParser, *, without: Collection[str] = ()) -> None:
    sub.add_argument("--preset", choices=PRESETS, default=None, help="values to start from (default: quickstart)")
    sub.add_argument("--config", type=Path, default=None, metavar="FILE", help="a config.json that a run saved")
    for name, field in CONFIG_FIELDS.items():
        if name in without:
            continue
        default = "none" if field.default is None else field.default
        text = f"{_help_of(name)} [{default}]".replace("%", "%%")
        hint = typing.get_type_hints(TrainConfig)[name]
        if typing.get_origin(hint) is Literal:
            sub.add_argument(_flag(name), choices=typing.get_args(hint), help=text)
        elif hint is bool:
            sub.add_argument(_flag(name), action=argparse.BooleanOptionalAction, help=text)
        else:
            kind = typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
            sub.add_argument(_flag(name), type=kind, metavar=kind.__name__.upper(), help=text)


def _add_paths(parser: argparse.ArgumentParser, *, data: bool = True) -> None:
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help=_help_of("artifacts"))
    if data:
        parser.add_argument("--data-dir", type=Path, help=_help_of("data_dir"))


def _add_dataset(parser: argparse.ArgumentParser, default: str) -> None:
    choices = typing.get_args(typing.get_type_hints(TrainConfig)["dataset"])
    parser.add_argument("--dataset", choices=choices, default=default, help=f"{_help_of('dataset')} [{default}]")


def _help_of(field: str) -> str:
    return CONFIG_FIELDS[field].metadata["help"]


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")
