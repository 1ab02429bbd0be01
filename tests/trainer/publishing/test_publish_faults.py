"""Each disk call of a publisher fails once: the served version stays, and the next publisher succeeds."""

import errno
import itertools
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.trainer.publisher import take_as_prepared
from trainer.errors import ExitCode, exit_code_of
from trainer.publishing.gate import Gate
from trainer.publishing.publish import publish
from trainer.publishing.verify_export import verify
from trainer.publishing.versions import live_versions, version_folder

ERRORS = itertools.cycle([errno.ENOSPC, errno.EIO, errno.EACCES])


def publish_once(trained, model_dir: Path) -> int:
    return publish(
        trained.model,
        trained.evaluation,
        trained.test,
        model_dir=model_dir,
        gate=Gate(min_accuracy=0.5, tolerance=1.0),
        now=datetime.now(UTC),
        metadata={},
        verify=verify,  # in this process, where the calls fail too
    ).version


def refusal(trained, model_dir: Path) -> OSError | None:
    try:
        publish_once(trained, model_dir)
    except OSError as error:
        return error
    return None


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename"])
def test_any_call_may_fail_and_the_served_version_stays_and_the_next_publisher_succeeds(
    tmp_path: Path, monkeypatch, trained, call: str
) -> None:
    monkeypatch.setattr("trainer.publishing.export.normalize", take_as_prepared)
    model_dir = tmp_path / "models" / "digits"
    first = publish_once(trained, model_dir)
    served = contents(version_folder(model_dir, first))
    real, calls = getattr(os, call), 0

    for failing in itertools.count(1):
        calls, number = 0, next(ERRORS)

        def fail(*args, failing=failing, number=number, **options):
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(number, os.strerror(number), str(args[0]))
            return real(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            error = refusal(trained, model_dir)
        # A failed mkdir of an existing folder is not an error.
        assert error or calls < failing or call == "mkdir"
        if error:
            assert exit_code_of(error) == ExitCode.IO
            assert os.strerror(number) in str(error)
        assert contents(version_folder(model_dir, first)) == served
        assert not list(model_dir.glob(".staging-*"))
        for version in live_versions(model_dir)[1:]:
            assert contents(version_folder(model_dir, version)).keys() == served.keys(), "complete or absent"
        if calls < failing:
            break  # no call failed this time: each has failed once before

    assert failing > {"fsync": 8, "mkdir": 2, "rename": 1}[call], "a publisher makes at least so many calls"
    newest = live_versions(model_dir)[-1]
    assert publish_once(trained, model_dir) > newest
