"""The notebook runs from the first cell to the last, and the outputs that are kept in it come from such a run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[1]
NOTEBOOK = REPOSITORY / "notebooks" / "digits.ipynb"
MNIST = Path(os.environ.get("MNIST_DIR", REPOSITORY.parent / "shared" / "data" / "mnist"))

Cell = dict[str, Any]


def code_cells(notebook: Path) -> list[Cell]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def kinds_of(cell: Cell) -> list[str]:
    """What a cell shows: "text", or the MIME type of a picture."""
    shown = [list(output.get("data", {"text": ""})) for output in cell["outputs"]]
    return ["image/png" if "image/png" in kinds else "text" for kinds in shown]


def text_of(cells: list[Cell]) -> str:
    """All text that the cells show."""
    outputs = [output for cell in cells for output in cell["outputs"]]
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join("".join(text) for text in texts)


def accuracies(text: str) -> dict[str, float]:
    """The table of the networks: name -> accuracy in percent."""
    return {
        name: float(value) for name, value in re.findall(r"^(MLP|MLP \+ dropout|CNN) +([\d.]+) %$", text, re.MULTILINE)
    }


def check_accuracies(text: str) -> None:
    found = accuracies(text)
    assert set(found) == {"MLP", "MLP + dropout", "CNN"}
    if "data: MNIST" in text:
        assert found["MLP"] >= 97.5
        assert found["CNN"] >= 99.0


@pytest.mark.slow
def test_a_new_run_shows_the_same_kinds_of_output_and_reaches_the_accuracies(tmp_path: Path) -> None:
    output = tmp_path / "run.ipynb"
    command = [sys.executable, "-m", "notebooks.run", "--output", str(output)]
    environment = {**os.environ, **({"MNIST_DIR": str(MNIST)} if MNIST.is_dir() else {})}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kept, fresh = code_cells(NOTEBOOK), code_cells(output)
    assert [kinds_of(cell) for cell in fresh] == [kinds_of(cell) for cell in kept]
    check_accuracies(text_of(fresh))


def test_the_kept_outputs_come_from_one_run_and_name_no_machine() -> None:
    cells = code_cells(NOTEBOOK)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not re.search(r"/(tmp|home|root|Users|work)/", text_of(cells))


def test_the_kept_accuracies_reach_the_bars() -> None:
    text = text_of(code_cells(NOTEBOOK))
    assert "data: MNIST" in text
    check_accuracies(text)


def test_every_kept_picture_has_alternative_text() -> None:
    outputs = [output for cell in code_cells(NOTEBOOK) for output in cell["outputs"]]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 6
    assert all(len(picture["metadata"]["image/png"]["alt"].split()) >= 5 for picture in pictures)


@pytest.mark.parametrize(
    ("plain", "dropped", "expected"),
    [
        ([0.5, 0.2, 0.3], [0.6, 0.3, 0.2], ("loss rises again", "ends lower")),
        ([0.5, 0.3, 0.2], [0.6, 0.5, 0.4], ("loss does not rise again", "ends no lower")),
    ],
)
def test_the_sentence_on_overfitting_says_what_the_losses_say(
    plain: list[float], dropped: list[float], expected: tuple[str, str]
) -> None:
    from notebooks.story import overfitting_in_words

    sentence = overfitting_in_words(history_of(plain), history_of(dropped))
    assert all(part in sentence for part in expected)


def history_of(validation_losses: list[float]) -> Any:
    return SimpleNamespace(history={"val_loss": validation_losses})
