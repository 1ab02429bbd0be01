"""`digits`: every command of the trainer and of the serving side under one name.

    $ digits train --preset quickstart        # python -m trainer train ...
    $ digits predict photo.jpg                # python -m serving predict ...
    $ source <(digits completion bash)        # or zsh

Only the side that has the command is imported, so that `digits predict` starts as fast as `python -m serving predict` and
works without the trainer's packages.
"""

import argparse
import contextlib
import difflib
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence

SERVING_COMMANDS = ("predict", "status", "metadata", "wait", "bench", "web", "serve")
TRAINER_COMMANDS = ("train", "learn", "tune", "evaluate", "publish", "rollback", "doctor", "data", "runs", "compare")
SHELLS = ("bash", "zsh")
EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command, *rest = arguments or ["--help"]
    if command in SERVING_COMMANDS:
        from serving.__main__ import main as run_serving

        return run_serving(arguments, prog="digits")
    if command in TRAINER_COMMANDS:
        try:
            from trainer.cli import main as run_trainer
        except ModuleNotFoundError as error:
            return _fail(f"{command} needs {error.name}, which is not installed: python -m pip install .")
        return run_trainer(arguments, prog="digits")
    if command == "completion":
        if rest not in ([shell] for shell in SHELLS):
            return _fail(f"completion needs one of {', '.join(SHELLS)}: source <(digits completion bash)")
        return _print(completion_script(rest[0]))
    if command == "--version":
        from serving import __version__

        return _print(f"digits {__version__}\n")
    if command in ("-h", "--help"):
        return _print(_help()) or (EXIT_OK if arguments else EXIT_USAGE)
    nearest = difflib.get_close_matches(command, (*SERVING_COMMANDS, *TRAINER_COMMANDS, "completion"), n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return _fail(f"there is no command {command!r}{hint} (digits --help lists all)")


def _print(text: str) -> int:
    """Write to standard output and return the exit status. A reader that has left, as `| head` does, is no bug."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        # Python flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return EXIT_FAILED
        return _fail(f"cannot write to standard output: {error.strerror}")
    return EXIT_OK


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return EXIT_USAGE


def _help() -> str:
    summaries = {action.dest: action.help or "" for commands in _commands() for action in commands._choices_actions}
    summaries["completion"] = f"print a completion script for {' or '.join(SHELLS)}"
    lines = [
        textwrap.fill(text, 80, initial_indent=f"  {name:12}", subsequent_indent=" " * 14)
        for name, text in summaries.items()
    ]
    return "\n".join(
        (
            "usage: digits COMMAND ...",
            "",
            "Train a digit recogniser, hand it to TensorFlow Serving, and query it.",
            "",
            *lines,
            "",
            "digits COMMAND --help describes a command, digits --version prints the version.\n",
        )
    )


def _commands() -> Iterator[argparse._SubParsersAction]:
    """Yield the subcommands of both sides; those of the trainer only if it is installed."""
    from serving.cli import build_parser as build_serving_parser

    parsers = [build_serving_parser("digits", serve=True)]
    with contextlib.suppress(ModuleNotFoundError):
        from trainer.cli import build_parser as build_trainer_parser

        parsers.insert(0, build_trainer_parser([], "digits"))
    for parser in parsers:
        yield from (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def completion_script(shell: str) -> str:
    """Return a script that completes commands, flags, the values of flags with choices, and file names."""
    cases = {"completion": f"    completion) words='{' '.join(SHELLS)}' ;;\n"}
    for commands in _commands():
        cases |= {name: _case(name, parser) for name, parser in commands.choices.items()}
    return f"""{"autoload -U +X bashcompinit && bashcompinit" if shell == "zsh" else ""}
_digits() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words=
  [ "$COMP_CWORD" = 1 ] && words='{" ".join(cases)} --help --version' || case ${{COMP_WORDS[1]}} in
{"".join(cases.values())}  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _digits digits
""".lstrip("\n")


def _case(name: str, parser: argparse.ArgumentParser) -> str:
    """Return the shell's case for one command: values after a flag with choices, flags after a dash, or subcommands."""
    flags, values, subcommands = [], "", ""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            subcommands = " ".join(action.choices)
        for flag in action.option_strings:
            flags.append(flag)
            if action.choices:
                values += f"      {flag}\\ *) words='{' '.join(map(str, action.choices))}' ;;\n"
    return (
        f'    {name}) case "$previous $current" in\n{values}'
        f"      *\\ -*) words='{' '.join(flags)}' ;;\n      *) words='{subcommands}' ;;\n    esac ;;\n"
    )


if __name__ == "__main__":
    sys.exit(main())
