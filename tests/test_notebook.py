"""The notebook runs from its first cell to its last. The committed outputs come from such a run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NOTEBOOK = REPOSITORY / "notebooks" / "digits.ipynb"


def _code_cells(notebook: Path) -> list[dict]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def _kinds(cell: dict) -> list[str]:
    """What a cell shows: "text", or the MIME type of a picture."""
    shown = [list(output.get("data", {"text": ""})) for output in cell["outputs"]]
    return ["image/png" if "image/png" in kinds else "text" for kinds in shown]


@pytest.mark.slow
def test_it_runs_and_shows_what_the_kept_one_shows(tmp_path):
    output = tmp_path / "run.ipynb"
    command = [sys.executable, "-m", "notebooks.run", "--output", str(output)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    kept, fresh = _code_cells(NOTEBOOK), _code_cells(output)
    assert [_kinds(cell) for cell in fresh] == [_kinds(cell) for cell in kept]


def test_the_kept_one_was_run_in_order_and_names_no_machine():
    cells = _code_cells(NOTEBOOK)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(kinds.count("image/png") for kinds in map(_kinds, cells)) >= 6
    shown = [
        output.get("text", output.get("data", {}).get("text/plain")) for cell in cells for output in cell["outputs"]
    ]
    assert not re.search(r"/(tmp|home|root|Users|work)/", str(shown))
