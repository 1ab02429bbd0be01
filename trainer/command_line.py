"""Commands that messages suggest, as the user can type them in his shell."""

import shlex
import shutil
import sys
from pathlib import Path

SCRIPT = "digits"
"""Name of the console script."""


def command_line(*arguments: object, package: str = "trainer") -> str:
    """Return the command with these arguments, started as this process was: `digits train --run r`.

    The trainer's Python is often in a virtual environment that is not activated, so `python` may be another one.

    Args:
        arguments: command and flags.
        package: the package that has the command, for a process that was started as `python -m trainer`.
    """
    started = Path(sys.argv[0])
    start = [_typed(started)] if started.name == SCRIPT else [_typed(Path(sys.executable)), "-m", package]
    return shlex.join([*start, *map(str, arguments)])


def tensorboard_line(folder: Path) -> str:
    """Return the command that shows the runs in `folder`, with the TensorBoard of the Python that runs this process."""
    return shlex.join([_typed(Path(sys.executable).with_name("tensorboard")), "--logdir", str(folder)])


def _typed(program: Path) -> str:
    """Return the shortest text that starts the program: its name, its path from the working folder, or its full path."""
    found = shutil.which(program.name)
    if found and Path(found).absolute() == program.absolute():
        return program.name
    if program.is_absolute() and program.is_relative_to(Path.cwd()):
        return str(program.relative_to(Path.cwd()))
    return str(program)
