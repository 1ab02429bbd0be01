"""The command `digits`: it reaches every command of both sides, and its completion works in a real shell."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import digits
import serving
from serving.cli import build_parser as build_serving_parser
from trainer.cli import build_parser as build_trainer_parser

REPOSITORY = Path(__file__).parents[1]

NO_SPACE = "error: cannot write to standard output: No space left on device\n"


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "digits", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )


def subcommands(parser: argparse.ArgumentParser) -> set[str]:
    (action,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return set(action.choices)


def test_it_has_every_command_of_both_sides_and_no_name_twice() -> None:
    assert set(digits.SERVING_COMMANDS) == subcommands(build_serving_parser(serve=False))
    assert set(digits.TRAINER_COMMANDS) == subcommands(build_trainer_parser([]))
    assert not {*digits.SERVING_COMMANDS} & {*digits.TRAINER_COMMANDS, "completion"}


def test_help_lists_every_command_with_a_summary(capsys) -> None:
    assert digits.main(["--help"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if re.match("  [a-z]", line)]
    assert {name for name, _ in lines} == {*digits.SERVING_COMMANDS, *digits.TRAINER_COMMANDS, "completion"}
    assert digits.main([]) == 2


@pytest.mark.parametrize("command", ["predict", "train"])
def test_a_command_runs_under_the_name_digits(command: str) -> None:
    assert f"usage: digits {command}" in run(command, "--help").stdout


@pytest.mark.parametrize("command", digits.TRAINER_COMMANDS)
def test_the_help_of_each_command_of_the_trainer_lists_the_exit_statuses(command: str, capsys) -> None:
    with pytest.raises(SystemExit):
        build_trainer_parser([]).parse_args([command, "--help"])
    assert "75 stopped" in capsys.readouterr().out


def test_a_command_imports_only_its_own_side() -> None:
    code = "import sys, digits; digits.main(['wait', '--timeout', '0.1', '--target', 'localhost:1'])"
    code += "; print(*sorted({'trainer', 'tensorflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_an_unknown_command_suggests_the_nearest(capsys) -> None:
    assert digits.main(["predct"]) == 2
    assert "did you mean predict?" in capsys.readouterr().err


def test_without_the_trainer_its_commands_name_the_missing_package(capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "trainer.cli", None)
    assert digits.main(["train"]) == 2
    assert (
        capsys.readouterr().err == "error: train needs trainer.cli, which is not installed: python -m pip install .\n"
    )
    assert digits.main(["--help"]) == 0


def test_the_version_is_that_of_the_project(capsys) -> None:
    assert digits.main(["--version"]) == 0
    assert capsys.readouterr().out == f"digits {serving.__version__}\n"
    assert tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"] == serving.__version__


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["completion", "bash"]], ids=" ".join)
def test_output_that_nobody_reads_ends_it_without_a_traceback(arguments: list[str], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed, Path("/dev/full").open("wb") as full:
        for stdout, expected in ((closed, (1, "")), (full, (2, NO_SPACE))):
            done = subprocess.run(
                [sys.executable, "-m", "digits", *arguments],
                cwd=REPOSITORY, env={**os.environ, "PYTHONUNBUFFERED": unbuffered}, stdout=stdout,
                stderr=subprocess.PIPE, text=True, timeout=60,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == expected


@pytest.mark.parametrize("arguments", [[], ["fish"], ["bash", "zsh"]])
def test_completion_needs_a_known_shell(arguments: list[str], capsys) -> None:
    assert digits.main(["completion", *arguments]) == 2
    assert "bash, zsh" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pre"], {"predict"}),
        (["predict", "--min"], {"--min-confidence"}),
        (["train", "--preset", "f"], {"fast", "frontier"}),
        (["data", ""], {"prepare", "verify", "samples"}),
        (["completion", ""], {"bash", "zsh"}),
        (["predict", ""], set()),  # the shell then completes file names
    ],
)
@pytest.mark.parametrize("shell", digits.SHELLS)
def test_completion_in_a_real_shell(shell: str, words: list[str], expected: set[str]) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell}")
    script = digits.completion_script(shell)
    quoted = " ".join(f"'{word}'" for word in ("digits", *words))
    script += f'\nCOMP_WORDS=({quoted}) COMP_CWORD={len(words)}\n_digits\necho "${{COMPREPLY[@]}}"\n'
    if shell == "zsh":  # what zsh itself does before it calls a completion function of bash
        script = f"autoload -Uz compinit && compinit -u; emulate sh; setopt kshglob braceexpand ksharrays\n{script}"
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, timeout=60)
    completions = {word for word in done.stdout.split() if word.startswith(words[-1])}  # zsh itself filters later
    assert (done.stderr, completions) == ("", expected)
