"""The command line: `python -m trainer COMMAND`, from `train` and `learn` to `publish` and `rollback`; `--help` lists all.

    python -m trainer train                   # the embedded digits, a minute, no download
    python -m trainer train --preset fast     # MNIST, above 99.2 %
    python -m trainer rollback                # back to the version before

This file parses arguments and calls one function for each command; `trainer/run.py` tells what `train` does. TensorFlow
is imported only by the command that needs it, so `--help` answers at once.
"""

import argparse
import dataclasses
import difflib
import os
import re
import sys
import textwrap
import traceback
import types
import typing
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

from serving.contract import MODEL_NAME
from trainer.command_line import command_line
from trainer.config import TrainConfig, resolve
from trainer.errors import ConfigError, ExitCode, RunError, exit_code_of
from trainer.presets import PRESETS
from trainer.runs.console import Console, LogFormat, open_console
from trainer.runs.signals import StoppedError, stoppable
from trainer.settings import GROUPS, refuse_url
from trainer.training.cluster import find_cluster

VARIED = ("learning_rate=1e-3:1e-2:log", "dropout=0:0.5", "width=0.5:2:log")
"""What `tune` varies unless `--vary` says otherwise."""

SEARCH_OPTIONS = ("trials", "sampler", "prune", "jobs", "finalists", "seeds")
"""The flags of `tune` that are fields of `SearchOptions`."""

PUBLISH_SETTINGS = (
    "min_accuracy", "tolerance", "significance", "allow_other_data", "keep_versions", "models_dir", "model_name",
)  # fmt: skip
"""What `publish` may set otherwise than the run's config does."""

LEARN_SETTINGS = (
    "artifacts", "data_dir", "models_dir", "model_name", "run", "epochs", "learning_rate", "extra_weight", "seed",
    "publish", "min_accuracy", "tolerance", "significance", "keep_versions",
)  # fmt: skip
"""What `learn` may set otherwise than the config of the served version's run does."""

FIELDS = {field.name: field for field in dataclasses.fields(TrainConfig)}

EXAMPLES = """examples:
  {prog} train                            the embedded digits, a minute, no download
  {prog} train --preset fast --run first  MNIST; the same command resumes it after a stop
  {prog} train --config artifacts/runs/first/config.json --seed 1
"""

_STATUSES = "; ".join(f"{code.value}\xa0{code.name.lower()}" for code in ExitCode)  # A number stays beside its name.
_STATUSES = f"exit status: {_STATUSES}. trainer/errors.py says what each means."
EXIT_STATUSES = "\n" + textwrap.fill(_STATUSES, 80).replace("\xa0", " ")


def main(arguments: Sequence[str] | None = None, prog: str = "python -m trainer") -> int:
    """Run one command; return its exit status (see `trainer.errors`)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = build_parser(arguments, prog).parse_args(arguments)
    console = open_console(getattr(args, "log_format", "text"))
    try:
        with stoppable():
            args.command(args, console)
    except (RunError, OSError, StoppedError) as error:
        console.error(str(error), exit_code_of(error))
        return exit_code_of(error)
    except BaseException as error:
        traceback.print_exception(error)
        return exit_code_of(error)
    return ExitCode.OK


def _train(args: argparse.Namespace, console: Console) -> None:
    if "seeds" in args:
        _train_seeds(args, console)
        return
    from trainer.run import train_run

    train_run(_config(args), datetime.now(UTC), os.environ, console)


def _train_seeds(args: argparse.Namespace, console: Console) -> None:
    from trainer.seeds import train_seeds

    if find_cluster(os.environ):
        raise ConfigError("--seeds runs on one machine; start it outside of TF_CONFIG and of an Indexed Job")
    if getattr(args, "publish", False):
        raise ConfigError(
            "--seeds with --publish: expected one of them; `publish` publishes one of the runs afterwards"
        )
    train_seeds(_config(args), args.seeds, datetime.now(UTC), args.log_format, console)


def _learn(args: argparse.Namespace, console: Console) -> None:
    from trainer.learn import learn

    flags = {name: value for name, value in vars(args).items() if name in FIELDS}
    learn(args.corrections, flags, args.config, datetime.now(UTC), os.environ, console)


def _tune(args: argparse.Namespace, console: Console) -> None:
    from trainer.tuning.options import SearchOptions
    from trainer.tuning.search_space import check_values, parse  # numpy: not for `--help`

    now, config = datetime.now(UTC), _config(args)
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
    ranked = search.run(now, args.log_format)
    report(search, ranked, console)
    console.note(f"{'Publish:':<12} {command_line('publish', ranked[0].run_dir)}")


def _evaluate(args: argparse.Namespace, console: Console) -> None:
    from trainer.run import evaluate_run

    evaluate_run(_config_of_run(args.run_dir), datetime.now(UTC), console)


def _publish(args: argparse.Namespace, console: Console) -> None:
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


def _runs(args: argparse.Namespace, console: Console) -> None:
    from trainer.runs.listing import list_runs, text_of

    folder = args.artifacts / "runs"
    runs = list_runs(folder)
    text = text_of(runs) if runs else f"no run in {folder}; `{command_line('train')}` makes one"
    console.note(text, runs=[dataclasses.asdict(run) for run in runs])


def _compare(args: argparse.Namespace, console: Console) -> None:
    with console.phase("Loading TensorFlow"):
        from trainer.evaluation.compare import comparison_text, read_runs, write_comparison

    named = (args.artifacts / "runs" / run for run in args.runs)
    runs = read_runs([path if path.is_dir() else Path(run) for path, run in zip(named, args.runs, strict=True)])
    console.note(comparison_text(runs))
    page = args.page or args.artifacts / "comparison.html"
    with console.phase("Drawing the page"):
        write_comparison(page, runs)
    console.note(f"\nPage: {page}")


def _rollback(args: argparse.Namespace, console: Console) -> None:
    from trainer.publishing.versions import roll_back

    retired, served = roll_back(_model_dir(args), args.version, allow_none=args.allow_none)
    console.note(f"retired version {retired}; now served: {served if served is not None else 'nothing'}")


def _data_prepare(args: argparse.Namespace, console: Console) -> None:
    from trainer.data.mnist import prepare_mnist

    data_dir = args.data_dir or args.artifacts / "data"
    prepare_mnist(data_dir)
    console.note(f"MNIST is prepared in {data_dir}")


def _data_verify(args: argparse.Namespace, console: Console) -> None:
    from trainer.data.load import read_dataset

    train, test = read_dataset(args.dataset, args.data_dir or args.artifacts / "data")
    console.note(f"{args.dataset}: {len(train):,} training and {len(test):,} test examples are sound and disjoint")


def _data_samples(args: argparse.Namespace, console: Console) -> None:
    from trainer.data.load import read_dataset
    from trainer.data.samples import write_samples

    _, test = read_dataset(args.dataset, args.data_dir or args.artifacts / "data")
    for path in write_samples(test, args.folder, args.count):
        console.note(str(path))


def _doctor(args: argparse.Namespace, console: Console) -> None:
    from trainer.doctor import Level, examine

    findings = examine(args.artifacts, args.data_dir or args.artifacts / "data", _model_dir(args), os.environ)
    for finding in findings:
        style = {Level.PROBLEM: "bold red", Level.WARNING: "yellow"}.get(finding.level, "")
        console.note(f"{finding.level:<8} {finding.topic:<8} {finding.text}", style=style)
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    if problems:
        raise ConfigError(f"{problems} problem(s), above")


def _config(args: argparse.Namespace) -> TrainConfig:
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


class _Parser(argparse.ArgumentParser):
    """A parser that takes flags by their full names only, and suggests the nearest one for a typing error."""

    def __init__(self, description: str = "", **options: Any):
        # argparse wraps either both description and epilog or neither, and the epilog is a table.
        lines = [textwrap.fill(line, 80) for line in description.splitlines()]
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, formatter_class=formatter, description="\n".join(lines), **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # A subparser hands unknown arguments up to the main parser, which does not know the subparser's flags.
        known, unknown = super().parse_known_args(args, namespace)
        if unknown and any(action.option_strings for action in self._actions if action.dest != "help"):
            wrong = next((text.partition("=")[0] for text in unknown if text.startswith("--")), unknown[0])
            known_flags = [flag for action in self._actions for flag in action.option_strings]
            self.error(f"unrecognized argument {wrong}{_suggestion(wrong, known_flags)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        if wrong := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            message += _suggestion(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        self.exit(ExitCode.USAGE, f"error: {message}\nAll flags: {self.prog} --help\n")


def _suggestion(given: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def build_parser(arguments: Sequence[str], prog: str = "python -m trainer") -> argparse.ArgumentParser:
    """Return the parser of all commands; with `--preset` in `arguments`, `--help` shows that preset's values."""
    parser = _Parser(
        prog=prog,
        description="Train a digit recogniser and hand it to TensorFlow Serving.",
        epilog=EXAMPLES.format(prog=prog) + EXIT_STATUSES,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    preset = _preset_in(arguments)
    _add_train(commands, preset, EXAMPLES.format(prog=prog))
    _add_learn(commands)
    _add_tune(commands, preset)

    text = "list the runs: state, accuracy, time, and the version that each was published as"
    sub = commands.add_parser("runs", help=text, description=text)
    _add_log_format(sub)
    _add_paths(sub, data=False)
    sub.set_defaults(command=_runs)

    text = "compare trained runs on the same test digits: a table here, and a page with curves and pictures"
    sub = commands.add_parser("compare", help=text, description=text)
    sub.add_argument(
        "runs", nargs="+", metavar="RUN", help="name or folder of a run; the first is what the others are compared with"
    )
    sub.add_argument("--page", type=_local_path, help="where to write the page [<artifacts>/comparison.html]")
    _add_log_format(sub)
    _add_paths(sub, data=False)
    sub.set_defaults(command=_compare)

    text = "score a trained run on its test split again and draw its report"
    sub = commands.add_parser("evaluate", help=text, description=text)
    _add_run_dir(sub)
    sub.set_defaults(command=_evaluate)

    text = "publish a trained run's model if it passes the gate"
    sub = commands.add_parser("publish", help=text, description=text, argument_default=argparse.SUPPRESS)
    _add_run_dir(sub)
    sub.add_argument(
        "--artifacts", type=_local_path, help="publish to <artifacts>/models, and read the data in <artifacts>/data"
    )
    for name in PUBLISH_SETTINGS:
        _add_setting(sub, name, f"{_help_of(name)} (default: as in the run's config)")
    sub.set_defaults(command=_publish)

    text = "retire a version by renaming it: the server then serves the newest one that is left"
    sub = commands.add_parser("rollback", help=text, description=text)
    sub.add_argument("version", type=int, nargs="?", metavar="VERSION", help="the version to retire [the newest]")
    _add_paths(sub, data=False)
    _add_model(sub)
    sub.add_argument("--allow-none", action="store_true", help="retire it even if no version is left to serve")
    sub.set_defaults(command=_rollback)

    text = "what a run would find on this machine, problems first"
    sub = commands.add_parser("doctor", help=text, description=text)
    _add_paths(sub)
    _add_model(sub)
    sub.set_defaults(command=_doctor)

    text = "prepare MNIST, verify a data set, or write pictures from one"
    data = commands.add_parser("data", help=text, description=text)
    actions = data.add_subparsers(required=True, metavar="COMMAND")
    text = "prepare MNIST with tensorflow-datasets"
    sub = actions.add_parser("prepare", help=text, description=text)
    _add_paths(sub)
    sub.set_defaults(command=_data_prepare)
    text = "check counts, shapes, labels, checksums and overlap (prepares MNIST first if it is missing)"
    sub = actions.add_parser("verify", help=text, description=text)
    _add_paths(sub)
    _add_dataset(sub, default="mnist")
    sub.set_defaults(command=_data_verify)
    text = "write some test digits as PNG files, to try a served model with"
    sub = actions.add_parser("samples", help=text, description=text)
    sub.add_argument("folder", type=_local_path, metavar="FOLDER", help="where to write them")
    sub.add_argument("--count", type=int, default=10, help="number of digits [10]")
    _add_paths(sub)
    _add_dataset(sub, default="optdigits")
    sub.set_defaults(command=_data_samples)
    return parser


def _preset_in(arguments: Sequence[str]) -> str:
    """Return the preset that the arguments name, so that `--help` shows its values."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--preset", default="quickstart")
    preset = finder.parse_known_args([text for text in arguments if text not in ("-h", "--help")])[0].preset
    return preset if preset in PRESETS else "quickstart"


def _add_train(commands: Any, preset: str, examples: str) -> None:
    sub = commands.add_parser(
        "train",
        help="train, evaluate, report and publish",
        description=f"Train, evaluate, report and publish. Precedence: preset < --config FILE < flags.\n"
        f"In [brackets]: the values of the preset {preset}.",
        epilog=examples + EXIT_STATUSES,
        argument_default=argparse.SUPPRESS,
    )
    sub.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="train N runs that differ only in the seed, <run>-seed<k>, and print the mean test accuracy with its 95 %% "
        "interval. The runs are a measurement, so none is published; `publish` publishes one. After a stop, the same "
        "command with --run resumes them",
    )
    _add_config(sub, preset)
    sub.set_defaults(command=_train)


def _add_learn(commands: Any) -> None:
    text = "train the served version further on corrected pictures, and publish it if it passes the gate"
    sub = commands.add_parser("learn", help=text, description=text, argument_default=argparse.SUPPRESS)
    sub.add_argument(
        "corrections",
        type=_local_path,
        metavar="FOLDER",
        help="pictures in folders named 0 to 9 or listed in labels.csv, such as `digits web --collect FOLDER` keeps",
    )
    sub.add_argument(
        "--config",
        type=_local_path,
        default=None,
        metavar="FILE",
        help="config.json of the run that trained the served version (default: the one in <artifacts>/runs)",
    )
    _add_log_format(sub)
    for name in LEARN_SETTINGS:
        _add_setting(sub, name, _help_of(name))
    sub.set_defaults(command=_learn)


def _add_tune(commands: Any, preset: str) -> None:
    text = "train with many settings and compare them on validation data; the test split is not used"
    sub = commands.add_parser("tune", help=text, description=text, argument_default=argparse.SUPPRESS)
    sub.add_argument(
        "--vary",
        nargs="+",
        action="extend",
        default=None,
        metavar="NAME=VALUES",
        help="settings to vary: A,B,C draws one of the values, LOW:HIGH a number between them, LOW:HIGH:log a number on "
        f"a logarithmic scale (default: {' '.join(VARIED)})",
    )
    sub.add_argument("--trials", type=int, default=12, help="number of trials; the first has the given settings [12]")
    sub.add_argument(
        "--sampler",
        choices=("tpe", "qmc"),
        default="tpe",
        help="tpe models which settings are good and draws near them; qmc spreads the trials evenly [tpe]",
    )
    sub.add_argument(
        "--prune",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="stop a trial early that is clearly worse than the others [True]",
    )
    sub.add_argument("--jobs", type=int, default=1, help="trials at once; with GPUs each gets one of its own [1]")
    sub.add_argument("--finalists", type=int, default=3, help="number of best trials to train with several seeds [3]")
    sub.add_argument("--seeds", type=int, default=3, help="seeds per finalist; 1 = train none of them again [3]")
    sub.add_argument(
        "--run",
        help="name of the search; its trials are the runs <run>-000 and so on. An existing search is resumed "
        "(default: tune-<preset>-<UTC time>)",
    )
    _add_config(sub, preset, without={"run", "publish"})
    sub.set_defaults(command=_tune)


def _add_config(sub: argparse.ArgumentParser, preset: str, *, without: Collection[str] = ()) -> None:
    sub.add_argument("--preset", choices=PRESETS, default=None, help="values to start from (default: quickstart)")
    sub.add_argument(
        "--config", type=_local_path, default=None, metavar="FILE", help="JSON file of settings, e.g. a run's"
    )
    _add_log_format(sub)
    for title, settings in GROUPS.items():
        group = sub.add_argument_group(title, settings.__doc__)
        for field in dataclasses.fields(settings):
            if field.name in without or field.name == "preset":
                continue
            default = PRESETS[preset].get(field.name, field.default)
            text = f"{_help_of(field.name)} [{'none' if default in (None, '') else default}]"
            _add_setting(group, field.name, text)


def _add_setting(parser: argparse._ActionsContainer, name: str, text: str) -> None:
    hint, text = typing.get_type_hints(TrainConfig)[name], text.replace("%", "%%")
    if typing.get_origin(hint) is Literal:
        parser.add_argument(_flag(name), choices=typing.get_args(hint), help=text)
    elif hint is bool:
        parser.add_argument(_flag(name), action=argparse.BooleanOptionalAction, help=text)
    else:
        kind = typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
        convert = _local_path if kind is Path else kind
        parser.add_argument(_flag(name), type=convert, metavar=kind.__name__.upper(), help=text)


def _local_path(text: str) -> Path:
    try:
        refuse_url(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(f"{error}") from error
    return Path(text)


def _add_log_format(parser: argparse.ArgumentParser) -> None:
    text = "text for people, or json: one object per line, for a log collector [text]"
    parser.add_argument("--log-format", choices=typing.get_args(LogFormat), default="text", help=text)


def _add_run_dir(parser: argparse.ArgumentParser) -> None:
    _add_log_format(parser)
    parser.add_argument(
        "run_dir", type=_local_path, metavar="RUN_DIR", help="folder of the run: <artifacts>/runs/<run>"
    )


def _add_paths(parser: argparse.ArgumentParser, *, data: bool = True) -> None:
    parser.add_argument("--artifacts", type=_local_path, default=Path("artifacts"), help=_help_of("artifacts"))
    if data:
        parser.add_argument("--data-dir", type=_local_path, help=_help_of("data_dir"))


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models-dir", type=_local_path, help=_help_of("models_dir"))
    parser.add_argument("--model-name", default=MODEL_NAME, help=f"{_help_of('model_name')} [{MODEL_NAME}]")


def _add_dataset(parser: argparse.ArgumentParser, default: str) -> None:
    choices = typing.get_args(typing.get_type_hints(TrainConfig)["dataset"])
    parser.add_argument("--dataset", choices=choices, default=default, help=f"{_help_of('dataset')} [{default}]")


def _help_of(field: str) -> str:
    return FIELDS[field].metadata["help"]


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")
