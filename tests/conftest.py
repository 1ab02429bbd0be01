"""The order of the test files, for `make test` and `make test-slow`, which run several at a time."""

from pathlib import Path

import pytest

LONGEST_FIRST = (
    "trainer/training/test_workers.py",
    "trainer/runs/test_resume.py",
    "test_notebook.py",
    "trainer/test_run.py",
    "trainer/publishing/test_random_operations.py",
    "trainer/tuning/test_search.py",
    "serving/local_server/test_fuzz.py",
    "e2e/test_page.py",
    "benchmarks/test_training_benchmarks.py",
    "trainer/training/test_loop.py",
    "trainer/publishing/test_poller.py",
    "trainer/publishing/test_publish_faults.py",
    "trainer/test_learn.py",
    "trainer/publishing/test_publish.py",
    "trainer/test_seeds.py",
    "test_readme.py",
    "trainer/publishing/test_commands.py",
    "serving/web/test_web_page.py",
)
"""The files that take longest; the others follow in the order of their names."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let no long file start when the others are done: one process would run it while the rest wait."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST_FIRST)}
    assert all(path.is_file() for path in places), "LONGEST_FIRST names a file that is gone"
    items.sort(key=lambda item: places.get(item.path, len(places)))
