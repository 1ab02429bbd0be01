"""What a run prints on a terminal, into a pipe, and as JSON lines."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from typing import Any

import pytest

from trainer.runs.console import Progress, TerminalConsole, TextConsole, open_console

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def train_row(step: int, **values: Any) -> dict[str, Any]:
    row = {"kind": "train", "step": step, "epoch": step / 20, "loss": 0.0834, "images_per_second": 8123.4}
    return {**row, **values}


def validation_row(step: int) -> dict[str, Any]:
    return {"kind": "validation", "step": step, "loss": 0.05, "accuracy": 0.9833}


def play(console: Any) -> None:
    """A whole run of 400 steps, as `trainer/run.py` prints it."""
    console.facts({"data": "optdigits: 1,257 training, 180 validation, 360 test digits"})
    console.start(400, 0)
    for step in range(20, 401, 20):
        console.row(train_row(step))
        console.row(validation_row(step))
    with console.phase("Evaluating"):
        pass
    console.stop()
    console.note("Published as version 20260101120000.", style="bold green", version=20260101120000)
    console.error("the gate refused it", 5)


CLOSED = {"closed": ">&- 2>&-", "a full disk": ">/dev/full 2>/dev/full"}


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("redirection", CLOSED.values(), ids=CLOSED)
def test_streams_that_cannot_be_written_are_no_failure(redirection: str, log_format: str) -> None:
    code = (
        "from trainer.runs.console import open_console, print_to_stderr; "
        f"console = open_console({log_format!r}); console.facts({{'data': 'x'}}); console.note('x'); print_to_stderr('x')"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {redirection}"
    assert subprocess.run(["/bin/sh", "-c", command], timeout=60).returncode == 0


class Terminal:
    """A pseudo-terminal of 80 columns: its file, and what was written to it."""

    def __init__(self) -> None:
        self._leader, follower = os.openpty()
        self.file = os.fdopen(follower, "w")

    def read(self) -> str:
        self.file.close()
        parts = []
        while True:
            try:
                parts.append(os.read(self._leader, 65536))
            except OSError:  # The other end is closed.
                break
        os.close(self._leader)
        return b"".join(parts).decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "NO_COLOR": None, "FORCE_COLOR": None}.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    return Terminal()


def test_progress_names_every_number_and_fits_80_columns() -> None:
    now = [0.0]
    progress = Progress(400, 0, clock=lambda: now[0])
    for step in (20, 40, 60):
        progress.add(train_row(step))
        progress.add(validation_row(step))
        now[0] += 10.0
    assert progress.text(80) == "epoch  3.0/20 loss 0.083 validation accuracy 98.33 % 8,123 images/s 2:40 left"
    progress.add(train_row(80, epoch=12.5, loss=12.3456, images_per_second=1234567.0))
    assert "1,235k images/s" in progress.text()
    assert len(progress.text(80)) <= 80


def test_a_wide_terminal_gets_a_bar_and_a_narrow_one_the_first_numbers() -> None:
    progress = Progress(400, 0)
    assert "compiling" in progress.text(80)
    progress.add(train_row(200))
    bar = re.match(r"(━+)(─+) epoch 10.0/20", progress.text(120))
    assert bar
    assert len(bar[1]) == len(bar[2])
    assert progress.text(30) == "epoch 10.0/20 loss 0.083"


def test_time_left_is_measured_in_this_attempt_alone() -> None:
    now = [100.0]
    progress = Progress(400, 200, clock=lambda: now[0])
    progress.add(train_row(220))
    assert "left" not in progress.text(), "one row says nothing about the speed: it contains the compilation"
    now[0] += 5.0
    progress.add(train_row(240))
    assert progress.text().endswith("0:40 left")
    now[0] += 3.0
    assert progress.text().endswith("0:37 left"), "it counts down between two rows"


def test_a_pipe_gets_one_line_per_evaluation_and_no_escape_sequence() -> None:
    out, err = io.StringIO(), io.StringIO()
    console = open_console("text", out, err)
    assert type(console) is TextConsole
    play(console)
    lines = err.getvalue().splitlines()
    assert lines[0] == "data       optdigits: 1,257 training, 180 validation, 360 test digits"
    assert len([line for line in lines if "validation accuracy 98.33 %" in line]) == 20
    assert lines[-2:] == ["Evaluating ...", "error: the gate refused it"]
    assert out.getvalue() == "Published as version 20260101120000.\n"
    assert "\x1b" not in out.getvalue() + err.getvalue()


def test_json_lines_hold_the_same_and_each_has_a_kind() -> None:
    out, err = io.StringIO(), io.StringIO()
    play(open_console("json", out, err))
    lines = [json.loads(line) for line in err.getvalue().splitlines()]
    assert [line["kind"] for line in lines] == ["facts", *["validation"] * 20, "phase", "error"]
    assert lines[-1]["exit_code"] == 5
    assert lines[-2]["name"] == "Evaluating"
    assert json.loads(out.getvalue())["version"] == 20260101120000


def test_a_terminal_keeps_one_live_line_within_its_width(terminal: Terminal) -> None:
    console = open_console("text", terminal.file, terminal.file)
    assert type(console) is TerminalConsole
    play(console)
    shown = terminal.read()
    assert "\x1b[1;32mPublished" in shown, "the outcome is green"
    assert "\x1b[1;31merror: " in shown
    lines = [line.split("\r")[-1] for line in ESCAPE.sub("", shown).splitlines()]
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.startswith("epoch")] == [lines[1]], "only the last state stays"
    assert re.fullmatch(r"Evaluating \d\.\d s", next(line for line in lines if line.startswith("Evaluating 0")))


def test_a_message_on_standard_error_does_not_break_the_live_line(terminal: Terminal, monkeypatch) -> None:
    import sys

    monkeypatch.setattr(sys, "stderr", terminal.file)
    console = open_console("text", terminal.file, terminal.file)
    console.start(400, 0)
    print("warning: something", file=sys.stderr, flush=True)
    console.stop()
    assert "\nwarning: something" in "\n" + ESCAPE.sub("", terminal.read()).replace("\r", "\n")


def test_no_color_keeps_the_live_line_and_drops_the_colours(terminal: Terminal, monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    play(open_console("text", terminal.file, terminal.file))
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.read())


def test_a_dumb_terminal_gets_plain_lines(terminal: Terminal, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    play(open_console("text", terminal.file, terminal.file))
    shown = terminal.read()
    assert "\x1b" not in shown
    assert shown.count("validation accuracy") == 20


def test_rows_between_evaluations_are_paced(monkeypatch) -> None:
    err = io.StringIO()
    console = open_console("text", io.StringIO(), err)
    console.start(400, 0)
    console.row(train_row(1))
    assert not err.getvalue()
    start = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: start + 11.0)
    console.row(train_row(2))
    assert "epoch  0.1/20" in err.getvalue()
