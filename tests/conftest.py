"""What all tests share: the order of their files, several of which run at a time, and one `make demo`."""

import subprocess
from pathlib import Path

import pytest

from tests.make import make
from tests.once import made_once

REPOSITORY = Path(__file__).parents[1]

LONGEST_FIRST = (
    "trainer/training/test_workers.py",
    "trainer/runs/test_resume.py",
    "serving/web/test_page_drawing.py",
    "test_notebook.py",
    "trainer/test_run.py",
    "serving/web/test_page_photos.py",
    "trainer/publishing/test_random_operations.py",
    "serving/client/test_attempts.py",
    "trainer/tuning/test_search.py",
    "serving/web/test_page_messages.py",
    "serving/local_server/test_fuzz.py",
    "serving/commands/test_diagnosis.py",
    "trainer/training/test_loop.py",
    "e2e/test_page.py",
    "serving/local_server/test_versions.py",
    "trainer/test_learn.py",
    "benchmarks/test_training_benchmarks.py",
    "serving/web/test_web_server.py",
    "trainer/publishing/test_publish.py",
    "trainer/publishing/test_poller.py",
    "trainer/publishing/test_publish_faults.py",
    "serving/client/test_wait.py",
    "trainer/data/test_folder.py",
    "trainer/test_seeds.py",
    "test_readme.py",
    "serving/commands/test_bench.py",
    "trainer/pictures/test_normalize.py",
    "serving/client/test_failover.py",
    "trainer/publishing/test_commands.py",
)
"""The files that take longest; those that wait for servers stand between those that compute. The others follow in the
order of their names."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let no long file start when the others are done: one process would run it while the rest wait."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST_FIRST)}
    assert all(path.is_file() for path in places), "LONGEST_FIRST names a file that is gone"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A clone of the repository in which `make demo` has run; not to be changed. `said` holds what it printed.

    One run serves all test processes.
    """

    def clone_and_run(clone: Path) -> None:
        subprocess.run(["git", "clone", "-q", "--no-hardlinks", REPOSITORY, clone], check=True, timeout=60)
        done = subprocess.run(make("demo"), cwd=clone, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        (clone / "said").write_text(done.stdout + done.stderr)

    return made_once(tmp_path_factory, worker_id, "demo", clone_and_run)
