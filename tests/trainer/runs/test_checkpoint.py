"""Checkpoint files: written atomically, verified by checksum, and used by their own run only."""

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest

from trainer.config import refuse_mismatch
from trainer.errors import ConfigError
from trainer.runs.checkpoint import Checkpoint, Checkpoints, checkpoint_files, newest_checkpoint, write_checkpoint

IDENTITY = {"learning_rate": 0.1, "train data": "abc"}


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, {"variable.0": np.arange(step, dtype=np.float32)}, {"seconds": step / 3, "best": np.inf})


def open_checkpoints(folder: Path, **options) -> Checkpoints:
    return Checkpoints(folder, IDENTITY, **{"every_seconds": 0.0, "every_steps": 10, "keep": 3, **options})


def test_a_checkpoint_is_read_back_unchanged(tmp_path: Path) -> None:
    checkpoints = open_checkpoints(tmp_path)
    assert checkpoints.newest() == ""
    checkpoints.save(checkpoint(7))
    checkpoints.finish()
    found = open_checkpoints(tmp_path).read(checkpoints.newest())
    assert found.step == 7
    assert np.array_equal(found.arrays["variable.0"], np.arange(7, dtype=np.float32))
    assert found.facts == {"seconds": 7 / 3, "best": np.inf, "identity": IDENTITY}


def test_the_newest_few_are_kept(tmp_path: Path) -> None:
    checkpoints = open_checkpoints(tmp_path)
    for step in (2, 9, 10, 100, 11):
        checkpoints.save(checkpoint(step))
    checkpoints.finish()
    assert [newest_checkpoint(tmp_path / "checkpoints")[1].step] == [100]
    assert [int(path.name[5:13]) for path in checkpoint_files(tmp_path / "checkpoints")] == [10, 11, 100]


def test_a_checkpoint_that_is_removed_while_another_process_lists_them_is_no_error(tmp_path: Path, monkeypatch) -> None:
    old, new = (write_checkpoint(tmp_path, checkpoint(step)) for step in (1, 2))
    glob = Path.glob

    def glob_and_remove(folder: Path, pattern: str) -> list[Path]:
        found = list(glob(folder, pattern))
        old.unlink()
        return found

    monkeypatch.setattr(Path, "glob", glob_and_remove)
    assert checkpoint_files(tmp_path)[-1] == new


def test_a_checkpoint_is_due_by_steps_and_by_time(tmp_path: Path) -> None:
    by_steps = open_checkpoints(tmp_path, every_steps=10)
    assert not by_steps.due(9)
    assert by_steps.due(10)
    by_steps.save(checkpoint(12))
    assert not by_steps.due(21)
    assert by_steps.due(22)
    by_steps.finish()
    assert open_checkpoints(tmp_path, every_steps=0, every_seconds=1e-9).due(1)
    assert not open_checkpoints(tmp_path, every_steps=0, every_seconds=3600.0).due(10**9)
    assert not open_checkpoints(tmp_path, every_steps=0, every_seconds=0.0).due(10**9)


@pytest.mark.parametrize("damage", ["flipped bit", "cut short", "empty"])
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_it_used(
    tmp_path: Path, capsys, damage: str
) -> None:
    folder = tmp_path / "checkpoints"
    write_checkpoint(folder, checkpoint(5))
    path = write_checkpoint(folder, checkpoint(6))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flipped bit": content, "cut short": content[:100], "empty": b""}[damage])
    assert newest_checkpoint(folder)[1].step == 5
    assert f"{path} is damaged" in capsys.readouterr().err
    assert not path.exists()
    assert path.with_name(path.name + ".damaged").exists(), "it is renamed, not deleted"


def test_other_settings_and_other_data_are_refused_by_name(tmp_path: Path) -> None:
    checkpoints = open_checkpoints(tmp_path)
    checkpoints.save(checkpoint(1))
    checkpoints.finish()
    other = Checkpoints(tmp_path, {"learning_rate": 0.2, "train data": "xyz"}, every_seconds=0, every_steps=0, keep=1)
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.1 and is 0\.2, train data was 'abc' and is 'xyz'"):
        refuse_mismatch(other.read(other.newest()).identity, other.identity, "checkpoint")


CALLS = ("fsync", "mkdir", "open", "rename", "write")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", CALLS)
def test_whatever_call_fails_no_earlier_checkpoint_is_lost_and_the_next_one_succeeds(
    tmp_path: Path, monkeypatch, capsys, call: str, number: int
) -> None:
    folder = tmp_path / "checkpoints"
    if call != "mkdir":
        write_checkpoint(folder, checkpoint(1))
    failures = fail_once(monkeypatch, call, number)
    checkpoints = open_checkpoints(tmp_path)
    checkpoints.save(checkpoint(2))
    checkpoints.save(checkpoint(3))
    assert f"the checkpoint was not written: [Errno {number}] {os.strerror(number)}" in capsys.readouterr().err
    assert failures == [call], "the call was made, and failed"
    checkpoints.finish()
    steps = [int(path.name[5:13]) for path in checkpoint_files(folder)]
    assert steps == ([3] if call == "mkdir" else [1, 3])
    assert newest_checkpoint(folder)[1].step == 3
    assert not list(tmp_path.rglob(".partial-*"))


def test_an_unreadable_newest_checkpoint_is_skipped(tmp_path: Path, monkeypatch, capsys) -> None:
    folder = tmp_path / "checkpoints"
    write_checkpoint(folder, checkpoint(5))
    newest = write_checkpoint(folder, checkpoint(6))
    real = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path == newest:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert newest_checkpoint(folder)[1].step == 5
    assert os.strerror(errno.EIO) in capsys.readouterr().err


def test_a_rename_without_a_flushed_folder_is_reported(tmp_path: Path, monkeypatch) -> None:
    write_checkpoint(tmp_path / "checkpoints", checkpoint(1))
    real, calls = os.fsync, []

    def fail_on_the_folder(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail_on_the_folder)
    checkpoints = open_checkpoints(tmp_path)
    checkpoints.save(checkpoint(2))
    with pytest.raises(OSError, match="the checkpoint was not written"):
        checkpoints.finish()
    assert newest_checkpoint(tmp_path / "checkpoints")[1].step in (1, 2)


def test_the_failure_of_the_last_checkpoint_is_an_error(tmp_path: Path, monkeypatch) -> None:
    checkpoints = open_checkpoints(tmp_path)
    fail_once(monkeypatch, "fsync", errno.ENOSPC)
    checkpoints.save(checkpoint(2))
    with pytest.raises(OSError, match="the checkpoint was not written"):
        checkpoints.finish()


def test_a_bug_in_the_writing_thread_ends_the_training(tmp_path: Path) -> None:
    checkpoints = open_checkpoints(tmp_path)
    checkpoints.save(Checkpoint(1, {}, {"not for JSON": object()}))
    with pytest.raises(TypeError):
        checkpoints.save(checkpoint(2))


def fail_once(monkeypatch, call: str, number: int) -> list[str]:
    """Make the next `call` fail with the error `number`; the list gets its name when that has happened."""
    failures: list[str] = []
    owner, name = {
        "fsync": (os, "fsync"),
        "mkdir": (os, "mkdir"),
        "open": (io, "open"),
        "rename": (os, "replace"),
        "write": (Path, "write_bytes"),
    }[call]
    real = getattr(owner, name)

    def fail(*args, **kwargs):
        if failures:
            return real(*args, **kwargs)
        failures.append(call)
        if call == "write":
            real(args[0], b"half of it")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(owner, name, fail)
    return failures
