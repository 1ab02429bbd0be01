"""One way through the house: who may import whom, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def imports_of(path: Path) -> set[str]:
    """Full names of all that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def files_of(package: str) -> list[Path]:
    return sorted((REPOSITORY / package).rglob("*.py"))


@pytest.mark.parametrize("path", files_of("trainer"), ids=str)
def test_the_trainer_knows_of_serving_only_the_contract(path: Path) -> None:
    assert {n for n in imports_of(path) if n.split(".")[0] == "serving"} <= {
        "serving.contract",
        *(n for n in imports_of(path) if n.startswith("serving.contract.")),
    }


@pytest.mark.parametrize("path", files_of("serving"), ids=str)
def test_serving_knows_nothing_of_the_trainer(path: Path) -> None:
    assert not [name for name in imports_of(path) if name.split(".")[0] == "trainer"]


def test_what_both_packages_import_knows_neither() -> None:
    names = {name.split(".")[0] for name in imports_of(REPOSITORY / "quiet_tensorflow.py")}
    assert not names & {"trainer", "serving"}


@pytest.mark.parametrize("package", ["trainer", "serving"])
def test_no_module_imports_in_a_circle(package: str) -> None:
    def name_of(path: Path) -> str:
        return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")

    graph = {name_of(path): imports_of(path) for path in files_of(package)}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for name in graph[module] & set(graph) - {package}:
                visit(name, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", ["serving.client.client", "serving.cli", "serving.commands.bench"])
def test_the_client_imports_no_tensorflow(module: str) -> None:
    code = f"import sys, {module}; assert not [m for m in sys.modules if m.startswith('tensorflow')]"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=60)
