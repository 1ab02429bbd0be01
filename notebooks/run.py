"""Run the notebook from the first cell to the last and keep its outputs: `make notebook`.

    python -m notebooks.run [--output FILE]

What TensorFlow writes on standard error, and when each cell ran, are not kept. Fails at the first cell that does.
"""

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("digits.ipynb")


def run(notebook: nbformat.NotebookNode) -> None:
    """Replace the notebook's outputs by those of a new kernel.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    resources = {"metadata": {"path": NOTEBOOK.parent}}
    # The kernel starts in the notebook's folder; it has to find this project's packages, installed or not.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(NOTEBOOK.parents[1]), os.environ.get("PYTHONPATH", "")])
    NotebookClient(notebook, resources=resources, timeout=600, record_timing=False).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=NOTEBOOK, help="(default: the notebook itself)")
    args = parser.parse_args()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    run(notebook)
    nbformat.write(notebook, args.output)


if __name__ == "__main__":
    main()
