"""The command line: `python -m trainer COMMAND`, from `train` and `learn` to `publish` and `rollback`; `--help` lists all.

    python -m trainer train                   # the embedded digits, a minute or two, no download
    python -m trainer train --preset fast     # MNIST, about 99.39 %
    python -m trainer rollback                # back to the version before

This file parses arguments and calls one function of `trainer/commands.py`. TensorFlow is imported only by the commands
that need it, so `--help` answers at once.
"""

import argparse
import dataclasses
import difflib
import re
import sys
import textwrap
import traceback
import types
import typing
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from serving.contract import MODEL_NAME
from trainer import commands
from trainer.config import TrainConfig
from trainer.errors import ConfigError, ExitCode, RunError, exit_code_of
from trainer.learn import LEARNING
from trainer.presets import PRESETS
from trainer.runs.console import Console, LogFormat, open_console
from trainer.runs.signals import StoppedError, stoppable
from trainer.settings import GROUPS, refuse_url

Command = Callable[[argparse.Namespace, Console], None]

LEARN_SETTINGS = (
    "artifacts", "data_dir", "models_dir", "model_name", "run", "epochs", "learning_rate", "extra_weight", "seed",
    "publish", "min_accuracy", "tolerance", "significance", "keep_versions",
)  # fmt: skip
"""What `learn` may set otherwise than the config of the served version's run does."""

LEARN_DEFAULTS = {
    "artifacts": "artifacts",
    "models_dir": "none",
    "model_name": MODEL_NAME,
    "run": "learn-<UTC time>",
    "epochs": "about a minute of training",
    "learning_rate": "by network",
    "extra_weight": LEARNING["extra_weight"],
}
"""What they are without a flag; all others are as in the run's config."""

EXAMPLES = """examples:
  {prog} train                            the embedded digits, a minute or two, no download
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


class _Parser(argparse.ArgumentParser):
    """A parser that takes flags by their full names only, and suggests the nearest one for a typing error."""

    def __init__(self, description: str = "", **options: Any):
        # argparse wraps either both description and epilog or neither, and the epilog is a table.
        lines = [textwrap.fill(line, 80) for line in description.splitlines()]
        formatter = argparse.RawDescriptionHelpFormatter
        options.setdefault("epilog", EXIT_STATUSES.lstrip())
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
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    preset = _preset_in(arguments)
    _add_train(subparsers, preset, EXAMPLES.format(prog=prog))
    _add_learn(subparsers)
    _add_tune(subparsers, preset)

    sub = _add_command(subparsers, "runs", commands.runs)
    _add_log_format(sub)
    _add_paths(sub, data=False)

    sub = _add_command(subparsers, "compare", commands.compare)
    sub.add_argument(
        "runs", nargs="+", metavar="RUN", help="name or folder of a run; the first is what the others are compared with"
    )
    sub.add_argument("--page", type=_local_path, help="where to write the page [<artifacts>/comparison.html]")
    _add_log_format(sub)
    _add_paths(sub, data=False)

    sub = _add_command(subparsers, "evaluate", commands.evaluate)
    _add_run_dir(sub)

    sub = _add_command(subparsers, "publish", commands.publish, argument_default=argparse.SUPPRESS)
    _add_run_dir(sub)
    sub.add_argument(
        "--artifacts",
        type=_local_path,
        help="publish to <artifacts>/models, and read the data in <artifacts>/data if the run's config names no data_dir",
    )
    for name in commands.PUBLISH_SETTINGS:
        _add_setting(sub, name, f"{_help_of(name)} (default: as in the run's config)")

    sub = _add_command(subparsers, "rollback", commands.rollback)
    sub.add_argument("version", type=int, nargs="?", metavar="VERSION", help="the version to retire [the newest]")
    _add_paths(sub, data=False)
    _add_model(sub)
    sub.add_argument("--allow-none", action="store_true", help="retire it even if no version is left to serve")

    sub = _add_command(subparsers, "doctor", commands.doctor)
    _add_paths(sub)
    _add_model(sub)

    text = "prepare MNIST, verify a data set, or write pictures from one"
    data = subparsers.add_parser("data", help=text, description=text)
    actions = data.add_subparsers(required=True, metavar="COMMAND")
    sub = _add_command(actions, "prepare", commands.data_prepare)
    _add_paths(sub)
    sub = _add_command(actions, "verify", commands.data_verify)
    _add_paths(sub)
    _add_dataset(sub, default="mnist")
    sub = _add_command(actions, "samples", commands.data_samples)
    sub.add_argument("folder", type=_local_path, metavar="FOLDER", help="where to write them")
    sub.add_argument("--count", type=int, default=10, help="number of digits [10]")
    _add_paths(sub)
    _add_dataset(sub, default="optdigits")
    return parser


def _add_command(subparsers: Any, name: str, command: Command, **options: Any) -> argparse.ArgumentParser:
    """Add a command; its docstring is its text in the list of all commands and in its own help."""
    summary = (command.__doc__ or "").removesuffix(".")
    text = summary[:1].lower() + summary[1:]
    sub: argparse.ArgumentParser = subparsers.add_parser(name, help=text, description=text, **options)
    sub.set_defaults(command=command)
    return sub


def _preset_in(arguments: Sequence[str]) -> str:
    """Return the preset that the arguments name, so that `--help` shows its values."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--preset", nargs="?", default="quickstart")  # The real parser refuses a missing value.
    preset = finder.parse_known_args([text for text in arguments if text not in ("-h", "--help")])[0].preset
    return preset if preset in PRESETS else "quickstart"


def _add_train(subparsers: Any, preset: str, examples: str) -> None:
    sub = subparsers.add_parser(
        "train",
        help="train, evaluate, publish and report",
        description=f"Train, evaluate, publish and report. Precedence: preset < --config FILE < flags.\n"
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
    sub.set_defaults(command=commands.train)


def _add_learn(subparsers: Any) -> None:
    sub = _add_command(subparsers, "learn", commands.learn, argument_default=argparse.SUPPRESS)
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
        _add_setting(sub, name, f"{_help_of(name)} [{LEARN_DEFAULTS.get(name, 'as in the config')}]")


def _add_tune(subparsers: Any, preset: str) -> None:
    sub = _add_command(subparsers, "tune", commands.tune, argument_default=argparse.SUPPRESS)
    sub.add_argument(
        "--vary",
        nargs="+",
        action="extend",
        default=None,
        metavar="NAME=VALUES",
        help="settings to vary: A,B,C draws one of the values, LOW:HIGH a number between them, LOW:HIGH:log a number on "
        f"a logarithmic scale (default: {' '.join(commands.VARIED)})",
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
    return commands.FIELDS[field].metadata["help"]


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")
