"""The models folder: numbers, the lock, promotion, rollback and the removal of old versions."""

import errno
import fcntl
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.waiting import wait_until
from trainer.errors import BusyError, ConfigError, ExitCode
from trainer.publishing.versions import (
    HIGHEST_VERSION,
    REMOVED_PREFIX,
    STAGING_PREFIX,
    VersionError,
    live_versions,
    next_version,
    promote,
    publisher_lock,
    remove_old_versions,
    roll_back,
    staging_folder,
    unreadable_parents,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def names(model_dir: Path) -> set[str]:
    return {child.name for child in model_dir.iterdir()}


def make_versions(model_dir: Path, *versions: object) -> None:
    for version in versions:
        (model_dir / str(version)).mkdir(parents=True)
        (model_dir / str(version) / "saved_model.pb").write_text("model")


def test_version_numbers_grow_and_are_never_used_twice(tmp_path: Path) -> None:
    assert next_version(tmp_path / "none", NOW) == 20260102030405
    for name in ("20260102030405", "20260102030411.retired", ".staging-20260102030409", "7"):
        (tmp_path / name).mkdir()
    assert next_version(tmp_path, NOW) == 20260102030412
    assert live_versions(tmp_path) == [7, 20260102030405]
    local = NOW.astimezone(tz=None)
    assert next_version(tmp_path / "none", local) == 20260102030405, "the number is UTC in every time zone"


def test_a_name_beyond_64_bits_is_not_a_version_and_does_not_raise_the_next_number(tmp_path: Path) -> None:
    (tmp_path / "99999999999999999999").mkdir()
    assert live_versions(tmp_path) == []
    assert next_version(tmp_path, NOW) == 20260102030405


def test_promotion_never_overwrites(tmp_path: Path) -> None:
    for name in ("5", ".staging-5"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(VersionError, match="never overwritten"):
        promote(tmp_path / ".staging-5", 5)
    assert (tmp_path / "5" / "file").read_text() == "5"


def test_rollback_retires_the_newest_version_by_renaming_it(tmp_path: Path) -> None:
    for name in ("00007", "8", "9.retired", "junk"):
        (tmp_path / name).mkdir()
    assert roll_back(tmp_path) == (8, 7)
    assert names(tmp_path) == {".lock", "00007", "8.retired", "9.retired", "junk"}
    with pytest.raises(VersionError, match="7 is the only version"):
        roll_back(tmp_path)
    assert roll_back(tmp_path, allow_none=True) == (7, None)
    with pytest.raises(VersionError, match="no version to roll back from"):
        roll_back(tmp_path)
    with pytest.raises(VersionError, match="no version to roll back from"):
        roll_back(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_a_version_whose_copy_was_put_back_is_not_retired_over_the_first_one(tmp_path: Path) -> None:
    make_versions(tmp_path, 7, 8, "8.retired")
    with pytest.raises(VersionError, match=r"8\.retired exists already; remove or rename it"):
        roll_back(tmp_path)
    assert live_versions(tmp_path) == [7, 8]


def test_a_second_publisher_waits_and_then_fails_with_the_reason(tmp_path: Path) -> None:
    with (
        publisher_lock(tmp_path),
        pytest.raises(BusyError, match=r"another publisher has held the lock for 0\.2 s"),
        publisher_lock(tmp_path, timeout_seconds=0.2),
    ):
        pass


def test_the_lock_removes_what_a_killed_publisher_left(tmp_path: Path) -> None:
    leftover = staging_folder(tmp_path, 5)
    leftover.mkdir()
    (leftover / "saved_model.pb").write_text("half")
    with publisher_lock(tmp_path):
        assert not list(tmp_path.glob(f"{STAGING_PREFIX}*"))


def test_the_highest_possible_number_has_no_next_one(tmp_path: Path) -> None:
    make_versions(tmp_path, HIGHEST_VERSION)
    with pytest.raises(VersionError, match=rf"{HIGHEST_VERSION} is the highest possible version, .*rename it"):
        next_version(tmp_path, NOW)


def test_after_a_version_from_a_clock_in_the_future_numbers_still_grow(tmp_path: Path) -> None:
    make_versions(tmp_path, 20990101000000)
    assert next_version(tmp_path, NOW) == 20990101000001


def test_rollback_never_retires_a_version_that_appears_while_it_waits(tmp_path: Path) -> None:
    """Live 100 and a bad 200; while rollback waited, 300 was promoted, and 300 was retired instead of 200."""
    make_versions(tmp_path, 100, 200)
    outcome: list[object] = []

    def roll() -> None:
        try:
            outcome.append(roll_back(tmp_path))
        except VersionError as error:
            outcome.append(error)

    with publisher_lock(tmp_path):
        waiting = threading.Thread(target=roll)
        waiting.start()
        wait_until(lambda: len(lock_holders(tmp_path / ".lock")) == 2)
        make_versions(tmp_path, 300)
    waiting.join(30)
    [error] = outcome
    assert isinstance(error, VersionError)
    assert error.exit_code == ExitCode.USAGE
    assert "200 was the newest and is not any more; nothing was retired" in str(error)
    assert live_versions(tmp_path) == [100, 200, 300]
    assert roll_back(tmp_path, 200) == (200, 300)
    assert live_versions(tmp_path) == [100, 300]


def lock_holders(lock: Path) -> list[str]:
    """The descriptors of this process that have the lock file open."""
    return [file.name for file in Path("/proc/self/fd").iterdir() if os.path.realpath(file) == str(lock.resolve())]


def test_rollback_of_an_unknown_version_names_the_live_ones(tmp_path: Path) -> None:
    make_versions(tmp_path, 100, 200)
    with pytest.raises(VersionError, match="there is no live version 150; the versions are 100, 200"):
        roll_back(tmp_path, 150)
    assert roll_back(tmp_path, 100) == (100, 200)
    with pytest.raises(VersionError, match="there is no live version 100; the versions are 200"):
        roll_back(tmp_path, 100)


def test_a_wait_for_the_lock_is_announced(tmp_path: Path, capsys) -> None:
    with (
        publisher_lock(tmp_path),
        pytest.raises(BusyError),
        publisher_lock(tmp_path, timeout_seconds=1.2),
    ):
        pass
    assert capsys.readouterr().err == f"waiting for another process to release {tmp_path}/.lock\n"


def test_a_filesystem_without_locks_is_refused_with_the_remedy(tmp_path: Path, monkeypatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with (
        pytest.raises(ConfigError, match=r"this filesystem has no locks .* choose another folder"),
        publisher_lock(tmp_path),
    ):
        pass


def test_old_versions_are_removed_and_the_newest_ones_and_retired_ones_stay(tmp_path: Path) -> None:
    make_versions(tmp_path, "0100", 200, "250.retired", 300, 400)
    assert remove_old_versions(tmp_path, keep=2) == [100, 200]
    assert names(tmp_path) == {"250.retired", "300", "400"}
    assert remove_old_versions(tmp_path, keep=2) == []


def test_what_a_killed_removal_left_is_removed_by_the_next_publisher(tmp_path: Path) -> None:
    make_versions(tmp_path, f"{REMOVED_PREFIX}100", 200)
    with publisher_lock(tmp_path):
        assert names(tmp_path) == {".lock", "200"}


def test_folders_that_other_users_cannot_enter_are_named(tmp_path: Path, monkeypatch) -> None:
    version = tmp_path / "home" / "models" / "digits" / "100"
    version.mkdir(parents=True)
    for folder, mode in (("home", 0o700), ("home/models", 0o711), ("home/models/digits", 0o711)):
        (tmp_path / folder).chmod(mode)
    closed = unreadable_parents(version)
    assert tmp_path / "home" in closed
    assert tmp_path / "home" / "models" / "digits" in closed, "a server lists this one, so entering it is not enough"
    assert tmp_path / "home" / "models" not in closed
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert unreadable_parents(version) == [tmp_path / "home" / "models" / "digits"]
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "models" / "digits"))
    assert unreadable_parents(version) == [], "a home that holds the versions is left out too"


def test_a_user_without_a_home_can_publish(tmp_path: Path, monkeypatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    version = tmp_path / "digits" / "100"
    version.mkdir(parents=True)
    (tmp_path / "digits").chmod(0o700)
    monkeypatch.setattr(Path, "home", fail)
    assert tmp_path / "digits" in unreadable_parents(version)
