"""Opening a run's folder: which failures a retry can help."""

import errno
import itertools
import multiprocessing
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.trainer.conftest import run_trainer
from trainer.config import ConfigError, TrainConfig, resolve
from trainer.errors import BusyError, ExitCode, exit_code_of
from trainer.runs.folder import find_unfinished, open_run_folder, resume_command
from trainer.runs.result import RunResult

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


@pytest.mark.parametrize("content", ['{"hidden_size": 768}', "[]", "not JSON"])
def test_the_folder_of_another_program_that_has_a_config_json_too_is_left_as_it_is(
    tmp_path: Path, content: str
) -> None:
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(content)
    (folder / "weights.bin").write_text("precious")
    with pytest.raises(ConfigError, match="do not belong to a run"):
        open_once(tmp_path)
    assert (folder / "config.json").read_text() == content
    assert (folder / "weights.bin").read_text() == "precious"


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


def write_stopped_run(artifacts: Path, run: str, **settings: object) -> Path:
    """A run that was killed after its first checkpoint."""
    config = resolve("quickstart", flags={"artifacts": artifacts, "run": run, **settings})
    with open_run_folder(config, NOW) as config:
        checkpoint = config.run_dir / "checkpoints" / f"step-00000010-{'0' * 64}.npz"
        checkpoint.parent.mkdir()
        checkpoint.touch()
    return config.run_dir


def test_an_unfinished_run_of_the_same_settings_is_found_the_newest_first(tmp_path: Path) -> None:
    config = resolve("quickstart", flags={"artifacts": tmp_path})
    assert find_unfinished(config) is None
    write_stopped_run(tmp_path, "other-seed", seed=1)
    open_once(tmp_path, "no-checkpoint")
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / "config.json").write_text("{")
    finished = write_stopped_run(tmp_path, "finished")
    (finished / "result.json").write_text(RunResult().to_json())
    trial = write_stopped_run(tmp_path, "trial-of-a-search")
    (trial / "trial.json").write_text(RunResult().to_json())
    assert find_unfinished(config) is None
    older, newer = (write_stopped_run(tmp_path, name) for name in ("older", "newer"))
    (older / "result.json").write_text(RunResult(exit_code=ExitCode.STOPPED).to_json())
    os.utime(older / "config.json", (1, 1))
    assert find_unfinished(config) == newer
    with open_run_folder(resolve("quickstart", flags={"artifacts": tmp_path, "run": "newer"}), NOW):
        assert find_unfinished(config) == older, "the other one is being trained"


def test_train_without_a_name_prints_the_unfinished_run_and_the_command_that_resumes_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()  # Without any file: `train` ends with an error before it trains.
    stopped = write_stopped_run(tmp_path, "stopped", dataset="idx", data_dir=data)
    flags = ("--artifacts", tmp_path, "--dataset", "idx", "--data-dir", data)
    done = run_trainer("train", *flags)
    assert done.returncode == ExitCode.DATA, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("unfinished"))
    assert line.split(maxsplit=1)[1] == f"stopped, same settings; resume it: {resume_command(stopped)}"
    assert "unfinished" not in run_trainer("train", *flags, "--seed", 1).stderr
