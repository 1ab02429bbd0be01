"""How a command on a run ended: `result.json`, and `evaluate.json`, `publish.json` and `trial.json` beside it.

    {
      "format": 1,
      "exit_code": 0, "status": "ok", "message": "done",             trainer/errors.py has all codes
      "started": "2026-01-01T12:00:00+00:00", "finished": "...",     UTC
      "facts": {"network": "cnn, 134,570 parameters", ...},          what the report shows first
      "environment": {"command": "...", "revision": "...", ...},     trainer/runs/environment.py
      "data": {"train": "<SHA-256>", "validation": ..., "test": ...},
      "training": {"steps": 1234, "seconds": 27.1},                  without set-up and evaluations
      "validation": {"loss": 0.05, "accuracy": 0.99, ...},           of a trial: Evaluation.summary()
      "evaluation": {"loss": 0.04, "accuracy": 0.99, ...},           on the test split: Evaluation.summary()
      "extra": {"loss": 0.1, "accuracy": 0.95, ...},                 on the held-out extra pictures: Evaluation.summary()
      "gate": {"accuracy": 0.99, "limit": 0.985, "comparisons": [...]},   trainer/publishing/gate.py
      "published": {"version": 20260101120000, "folder": "...", "check": {...}},
      "outcome": "Published as version 20260101120000 in ..."        what the report says first
    }

Parts that the command did not reach are left out. A later format keeps these names or raises `format`.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError, ExitCode, RunError, exit_code_of
from trainer.runs.atomic import write_atomically
from trainer.runs.console import print_to_stderr
from trainer.runs.signals import StoppedError

FORMAT = 1
"""Version of the JSON form."""

RESULT_FILE = "result.json"
"""How `train` ended."""
EVALUATE_FILE = "evaluate.json"
"""How the last `evaluate` ended."""
PUBLISH_FILE = "publish.json"
"""How the last `publish` ended."""
TRIAL_FILE = "trial.json"
"""How a trial of `tune` ended."""


@dataclass(kw_only=True)
class RunResult:
    """How a command on a run ended; the module's docstring shows its JSON form."""

    format: int = FORMAT
    exit_code: int = ExitCode.OK
    status: str = ExitCode.OK.name.lower()
    message: str = "done"
    started: str = ""
    finished: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    """What is worth knowing of the run, by name: data, network, devices, times."""
    environment: dict[str, str] = field(default_factory=dict)
    """Command, revision, versions and machine: `trainer.runs.environment.environment()`."""
    data: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each split."""
    training: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    """What the gate required and compared: `Verdict.to_json()`."""
    extra: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)
    outcome: str = ""
    """One sentence: the version that was published, or why none was."""

    def end(self, error: BaseException | None, now: datetime) -> None:
        """Record the exit status, and the error if there is one."""
        code = exit_code_of(error) if error else ExitCode.OK
        self.exit_code, self.status = int(code), code.name.lower()
        if error:
            is_known = isinstance(error, RunError | StoppedError)
            self.message = f"{error}" if is_known else f"{type(error).__name__}: {error}"
        self.finished = now.isoformat(timespec="seconds")

    def to_json(self) -> str:
        """Return the JSON form, without the parts that are empty."""
        kept = {name: value for name, value in dataclasses.asdict(self).items() if value not in ("", {})}
        return json.dumps(kept, indent=2, allow_nan=False) + "\n"


@contextmanager
def recorded(path: Path, started: datetime) -> Iterator[RunResult]:
    """Yield a result for the body to fill in; it is written to `path` however the body ends."""
    result, failure = RunResult(started=started.isoformat(timespec="seconds")), None
    try:
        yield result
    except BaseException as error:
        failure = error
        raise
    finally:
        result.end(failure, datetime.now(UTC))
        try:
            write_atomically(path, lambda partial: partial.write_text(result.to_json()))
        except OSError as error:
            # A warning is enough: the error of the body matters more, and a full disk often causes both.
            print_to_stderr(f"warning: cannot write {path}: {error}")


def read_result(path: Path) -> RunResult | None:
    """Return the result that `recorded` wrote to `path`; None if there is none.

    Raises:
        ConfigError: the file is damaged, or has a later format.
    """
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text())
        later = values.get("format", FORMAT) > FORMAT
        names = {each.name for each in dataclasses.fields(RunResult)}
        result = RunResult(**{name: value for name, value in values.items() if name in names})
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error}); expected a result that the trainer wrote") from error
    if later:
        raise ConfigError(f"{path}: format {result.format}; this version of the trainer reads up to {FORMAT}")
    return result


def is_ended_trial(run_dir: Path) -> bool:
    """Return whether a run is a trial of `tune` that has been trained, or stopped early: nothing is left to resume."""
    try:
        result = read_result(run_dir / TRIAL_FILE)
    except ConfigError:
        return False
    return result is not None and result.exit_code == ExitCode.OK


def refuse_other_data(results: Sequence[tuple[Path, RunResult]]) -> None:
    """Refuse to compare runs that were trained on different data.

    Raises:
        ConfigError: naming two of them.
    """
    known = [(run_dir, result.data) for run_dir, result in results if result.data]
    for run_dir, data in known[1:]:
        if data != known[0][1]:
            raise ConfigError(f"{run_dir} was trained on other data than {known[0][0]}, so they cannot be compared")


def latest_result(run_dir: Path) -> RunResult:
    """Return how the last command that could publish this run ended."""
    results = (read_result(run_dir / name) for name in (RESULT_FILE, TRIAL_FILE, PUBLISH_FILE))
    latest = max((result for result in results if result), key=lambda result: result.finished, default=RunResult())
    if not latest.outcome:  # of a trial, or written before results had an outcome
        version = latest.published.get("version")
        latest.outcome = f"Published as version {version}." if version else "Trained; not published yet."
        if latest.exit_code != ExitCode.OK:
            latest.outcome = f"Not published: {latest.message}"
    return latest
