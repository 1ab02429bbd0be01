"""Lists the runs of an artefacts folder: state, accuracy, time and published version, as their result files have them.

This module imports no TensorFlow: the list appears at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from percent import percent
from trainer.errors import ConfigError, ExitCode
from trainer.runs.console import aligned
from trainer.runs.folder import CONFIG_FILE, LOCK_FILE
from trainer.runs.lock import is_locked
from trainer.runs.result import (
    EVALUATE_FILE,
    PUBLISH_FILE,
    RESULT_FILE,
    TRIAL_FILE,
    RunResult,
    read_result,
)

ENDED = {
    ExitCode.GATE: "refused",
    ExitCode.STOPPED: "stopped",
    ExitCode.DIVERGED: "diverged",
    ExitCode.MEMORY: "failed",
}
"""State of a run by the status that its last command ended with; any other error: failed."""


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """One line of the list."""

    run: str
    state: str
    """running, interrupted, stopped, stopped early, failed, diverged, trained, refused, published, or unreadable"""
    accuracy: float | None = None
    """On the test split; of a trial of `tune`, on the validation split."""
    split: str = "test"
    """What `accuracy` was measured on."""
    started: str = ""
    """UTC, as in result.json."""
    seconds: float | None = None
    """From start to end of the last attempt to train, evaluation and publishing included."""
    version: int | None = None
    """The version that the run was published as last."""


def list_runs(runs_dir: Path) -> list[ListedRun]:
    """Return the runs in a folder, the latest last; empty if the folder does not exist."""
    folders = [path.parent for path in runs_dir.glob(f"*/{CONFIG_FILE}")]
    return sorted((_describe(folder) for folder in folders), key=lambda run: (run.started, run.run))


def text_of(runs: Sequence[ListedRun]) -> str:
    """Return the list as lines of text."""
    rows = [["run", "state", "accuracy", "started (UTC)", "took", "published as"]]
    for run in runs:
        accuracy = "-" if run.accuracy is None else percent(run.accuracy)
        rows.append(
            [
                run.run,
                run.state,
                accuracy if run.split == "test" or run.accuracy is None else f"{accuracy} ({run.split})",
                run.started[:16].replace("T", " ") or "-",
                "-" if run.seconds is None else "{}:{:02d}".format(*divmod(round(run.seconds), 60)),
                str(run.version or "-"),
            ]
        )
    return aligned(rows)


def _describe(folder: Path) -> ListedRun:
    try:
        named = {name: read_result(folder / name) for name in (RESULT_FILE, TRIAL_FILE, EVALUATE_FILE, PUBLISH_FILE)}
        return _describe_results(folder, named)
    except (ConfigError, OSError, ValueError, TypeError, LookupError, AttributeError):
        # Damaged, or with values that this version does not know. The other runs are listed all the same.
        return ListedRun(run=folder.name, state="unreadable")


def _describe_results(folder: Path, named: Mapping[str, RunResult | None]) -> ListedRun:
    results = sorted((result for result in named.values() if result), key=lambda result: result.finished)
    trained = named[RESULT_FILE] or named[TRIAL_FILE]
    scores = [result.evaluation["accuracy"] for result in results if result.evaluation]
    validation = trained.validation.get("accuracy") if trained else None
    versions = [result.published["version"] for result in results if result.published]
    return ListedRun(
        run=folder.name,
        state="running"
        if is_locked(folder / LOCK_FILE)
        else _state([r for r in results if r is not named[EVALUATE_FILE]], named[TRIAL_FILE]),
        accuracy=scores[-1] if scores else validation,
        split="test" if scores or validation is None else "validation",
        started=trained.started if trained else "",
        seconds=_seconds(trained) if trained else None,
        version=versions[-1] if versions else None,
    )


def _state(results: Sequence[RunResult], trial: RunResult | None) -> str:
    """Return the state that the last of the commands that train or publish left, in the order of time."""
    if not results:
        return "interrupted"
    if results[-1].exit_code != ExitCode.OK:
        return ENDED.get(ExitCode(results[-1].exit_code), "failed")
    if results[-1].published:
        return "published"
    # A search stops a trial that is clearly worse: it has no score.
    return "stopped early" if results[-1] is trial and not trial.validation else "trained"


def _seconds(result: RunResult) -> float:
    return (datetime.fromisoformat(result.finished) - datetime.fromisoformat(result.started)).total_seconds()
