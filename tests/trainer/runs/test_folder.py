"""Opening a run's folder: which failures a retry can help."""

import errno
import itertools
import multiprocessing
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from trainer.config import ConfigError, TrainConfig
from trainer.errors import BusyError, ExitCode, exit_code_of
from trainer.runs.folder import open_run_folder

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def open_once(artifacts: Path, run: str = "r") -> None:
    with open_run_folder(TrainConfig(artifacts=artifacts, run=run), NOW):
        pass


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, ExitCode.IO), (errno.EACCES, ExitCode.USAGE)])
@pytest.mark.parametrize("call", ["mkdir", "fsync", "replace"])
def test_a_full_disk_can_be_retried_and_a_wrong_path_cannot(
    tmp_path: Path, monkeypatch, call: str, number: int, code: ExitCode
) -> None:
    real = getattr(os, call)
    for failing in itertools.count(1):
        calls = itertools.count(1)

        def fail(*args, failing=failing, calls=calls, **options):
            if next(calls) == failing:
                raise OSError(number, os.strerror(number))
            return real(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            error = refusal(tmp_path / str(failing))
        if error is None:
            break
        assert exit_code_of(error) == code
        assert os.strerror(number) in str(error)
        assert "None" not in str(error)
        open_once(tmp_path / str(failing))
    assert failing > 1


def refusal(artifacts: Path) -> BaseException | None:
    try:
        open_once(artifacts)
    except (ConfigError, OSError) as error:
        return error
    return None


def test_a_run_killed_while_it_wrote_its_first_file_can_be_started(tmp_path: Path) -> None:
    partial = tmp_path / "runs" / "r" / ".partial-config.json"
    partial.parent.mkdir(parents=True)
    partial.write_text("{")
    open_once(tmp_path)
    assert not partial.exists()


def test_a_run_in_progress_cannot_be_opened(tmp_path: Path) -> None:
    with (
        open_run_folder(TrainConfig(artifacts=tmp_path, run="r"), NOW),
        pytest.raises(BusyError, match="another process"),
    ):
        open_once(tmp_path)
    open_once(tmp_path)


def _open_often(artifacts: Path, run: str) -> None:
    for number in range(50):
        open_once(artifacts, f"{run}{number}")


def test_runs_that_start_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open_often, args=(tmp_path, run)) for run in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
