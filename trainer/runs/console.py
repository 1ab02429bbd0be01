"""Prints what a command is doing: on a terminal, into a pipe, or as JSON lines for a log collector.

    run        quickstart-20260101-120000
    data       optdigits: 4,190 training (70 % drawn by the pen), 180 validation, 360 test
    epoch 7.2/30 loss 0.083 validation accuracy 98.33 % 8,100 images/s 0:12 left
    Evaluating ...

Progress goes to standard error, results to standard output. `open_console` chooses. This module imports no TensorFlow: the
first lines appear before the seconds that its import takes.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO

import rich.console
from rich.live import Live
from rich.text import Text

from percent import percent

LogFormat = Literal["text", "json"]

REPORT_SECONDS = 10.0
"""Least time between two lines of progress within an epoch, where there is no terminal."""

WIDEST_BAR = 40
"""Columns of the bar on a wide terminal; a terminal of 80 columns has no room for one."""


class Console:
    """Prints nothing: for tests, and for workers that are not the chief."""

    def facts(self, facts: Mapping[str, str]) -> None:
        """Print facts that are known before training, by name: data, devices, where the run writes, how to resume it."""

    def start(self, steps: int, done: int) -> None:
        """Begin the progress of a training of `steps` steps, of which earlier attempts ran the first `done`."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Print a row of metrics.jsonl as progress."""

    def stop(self) -> None:
        """End the progress that `start` began."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:  # noqa: ARG002
        """Print that the body, a step of some seconds, is running."""
        yield

    def note(self, text: str, *, style: str = "", **fields: Any) -> None:
        """Print a result: `text` for people, `fields` for programs; `style` is rich's name of a colour."""

    def error(self, message: str, exit_code: int) -> None:
        """Print why the command failed."""


SILENT = Console()
"""Prints nothing."""


def open_console(log_format: LogFormat = "text", out: TextIO | None = None, err: TextIO | None = None) -> Console:
    """Return the console for a log format and the streams: lines of JSON, a live line on a terminal, or lines of text."""
    # Python has no stream where the shell closed it, as `train >&-` does.
    nowhere = Path(os.devnull).open("w")  # noqa: SIM115  (for as long as the process runs)
    out, err = out or sys.stdout or nowhere, err or sys.stderr or nowhere
    if log_format == "json":
        return JsonConsole(out, err)
    return TerminalConsole(out, err) if _is_terminal(err) else TextConsole(out, err)


def print_to_stderr(text: str) -> None:
    """Print a line, such as a warning, to standard error; one that is closed or full is no failure."""
    if sys.stderr:
        _print(sys.stderr, text)


class TextConsole(Console):
    """Prints lines of text, for a pipe or a file: one per evaluation, and one per `REPORT_SECONDS`."""

    def __init__(self, out: TextIO, err: TextIO):
        self._out, self._err = out, err
        self._progress = Progress(0, 0)
        self._pace = _Pace()

    def facts(self, facts: Mapping[str, str]) -> None:
        for name, text in facts.items():
            _print(self._err, Text.assemble((f"{name:<11}", "bold"), text))

    def start(self, steps: int, done: int) -> None:
        self._progress, self._pace = Progress(steps, done), _Pace()

    def row(self, row: Mapping[str, Any]) -> None:
        self._progress.add(row)
        if self._pace.due(row):
            _print(self._err, Text(self._progress.text()))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        _print(self._err, Text(f"{name} ..."))
        yield

    def note(self, text: str, *, style: str = "", **fields: Any) -> None:  # noqa: ARG002
        _print(self._out, Text(text, style))

    def error(self, message: str, exit_code: int) -> None:  # noqa: ARG002
        _print(self._err, Text.assemble(("error: ", "bold red"), message))


class TerminalConsole(TextConsole):
    """Keeps one live line on a terminal."""

    def __init__(self, out: TextIO, err: TextIO):
        super().__init__(out, err)
        self._terminal = rich.console.Console(file=err)
        self._live: Live | None = None

    def start(self, steps: int, done: int) -> None:
        super().start(steps, done)
        width = self._terminal.width
        self._live = Live(
            get_renderable=lambda: Text(self._progress.text(width), no_wrap=True, overflow="crop"),
            console=self._terminal,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=True,
        )
        self._live.start()

    def row(self, row: Mapping[str, Any]) -> None:
        self._progress.add(row)

    def stop(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.stop()  # Two live lines overwrite each other.
        started = time.monotonic()
        with self._terminal.status(f"{name} ..."):
            yield
        _print(self._err, Text.assemble(f"{name} ", (f"{time.monotonic() - started:.1f} s", "dim")))


class JsonConsole(Console):
    """Prints one JSON object per line, with its `kind` and its `time` in seconds since 1970."""

    def __init__(self, out: TextIO, err: TextIO):
        self._out, self._err = out, err
        self._pace = _Pace()

    def facts(self, facts: Mapping[str, str]) -> None:
        self._write(self._err, "facts", facts)

    def row(self, row: Mapping[str, Any]) -> None:
        if self._pace.due(row):
            _print(self._err, json.dumps(row))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._write(self._err, "phase", {"name": name, "seconds": round(time.monotonic() - started, 3)})

    def note(self, text: str, *, style: str = "", **fields: Any) -> None:  # noqa: ARG002
        self._write(self._out, "note", {"text": text, **fields})

    def error(self, message: str, exit_code: int) -> None:
        self._write(self._err, "error", {"message": message, "exit_code": exit_code})

    def _write(self, stream: TextIO, kind: str, fields: Mapping[str, Any]) -> None:
        _print(stream, json.dumps({"kind": kind, **fields, "time": round(time.time(), 3)}))


class Progress:
    """The state of a training, from its rows, as one line of text."""

    def __init__(self, steps: int, done: int, clock: Callable[[], float] = time.monotonic):
        self._steps, self._step, self._clock = steps, done, clock
        self._first: tuple[int, float] | None = None
        self._last_time = clock()
        self._train: Mapping[str, Any] = {}
        self._validation: Mapping[str, Any] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Take over the numbers of a row of metrics.jsonl."""
        if row["kind"] == "train":
            self._train, self._step, self._last_time = row, row["step"], self._clock()
            self._first = self._first or (self._step, self._last_time)
        elif row["kind"] == "validation":
            self._validation = row

    def text(self, width: int | None = None) -> str:
        """Return the line, with a bar if `width` columns have room for one, and never longer than that."""
        parts = self._parts()
        while width and len(parts) > 1 and len(" ".join(parts)) > width:
            parts.pop()
        line = " ".join(parts)
        if width and (room := min(width - len(line) - 1, WIDEST_BAR)) >= 10:
            filled = round(room * self._step / self._steps)
            line = f"{'━' * filled}{'─' * (room - filled)} {line}"
        return line

    def _parts(self) -> list[str]:
        if not self._train:
            return ["training: compiling the first step"]
        epochs = self._train["epoch"] * self._steps / self._train["step"]
        width = len(f"{epochs:.1f}")
        parts = [f"epoch {self._train['epoch']:{width}.1f}/{round(epochs, 1):g}", f"loss {self._train['loss']:.3f}"]
        if self._validation:
            parts.append(f"validation accuracy {percent(self._validation['accuracy'])}")
        parts.append(f"{_short(self._train['images_per_second'])} images/s")
        if (left := self._seconds_left()) is not None:
            minutes, seconds = divmod(round(left), 60)
            parts.append(f"{minutes}:{seconds:02d} left")
        return parts

    def _seconds_left(self) -> float | None:
        if not self._first or self._step == self._first[0]:
            return None
        per_step = (self._last_time - self._first[1]) / (self._step - self._first[0])
        return max(0.0, per_step * (self._steps - self._step) - (self._clock() - self._last_time))


class _Pace:
    """Decides which rows are printed where lines stay: evaluations, and one row per `REPORT_SECONDS`."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def due(self, row: Mapping[str, Any]) -> bool:
        now = time.monotonic()
        if row["kind"] != "validation" and now - self._last < REPORT_SECONDS:
            return False
        self._last = now
        return True


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines of text: the first column is aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join((first.ljust(widths[0]), *cells)).rstrip())
    return "\n".join(lines)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and not rich.console.Console(file=stream).is_dumb_terminal


def _print(stream: TextIO, text: Text | str) -> None:
    try:
        if isinstance(text, Text) and _is_terminal(stream):
            # rich honours NO_COLOR. soft_wrap: paths and commands stay on one line, so that they can be copied.
            rich.console.Console(file=stream).print(text, soft_wrap=True, highlight=False)
        else:
            print(text, file=stream, flush=True)
    except OSError:
        # The reader is gone, as in `train | head -1`, or the disk is full. A version may be live by now, so this is not a
        # failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _short(number: float) -> str:
    return f"{number:,.0f}" if number < 100_000 else f"{number / 1000:,.0f}k"
