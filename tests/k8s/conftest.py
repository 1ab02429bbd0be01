"""Without `kubectl` nothing can be rendered: every test here is skipped, with that reason."""

import shutil
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("kubectl"):
        return
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.skip(reason="kubectl is not installed; it renders the manifests"))
