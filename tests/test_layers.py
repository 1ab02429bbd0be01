"""Import rules, read from the source: each package imports only the ones before it."""

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
def test_the_trainer_imports_only_the_contract_of_serving(path: Path) -> None:
    assert {n for n in imports_of(path) if n.split(".")[0] == "serving"} <= {
        "serving.contract",
        *(n for n in imports_of(path) if n.startswith("serving.contract.")),
    }


@pytest.mark.parametrize("path", files_of("serving"), ids=str)
def test_serving_imports_nothing_of_the_trainer(path: Path) -> None:
    assert not [name for name in imports_of(path) if name.split(".")[0] == "trainer"]


@pytest.mark.parametrize("module", ["quiet_tensorflow", "percent"])
def test_a_module_that_both_packages_import_imports_neither(module: str) -> None:
    names = {name.split(".")[0] for name in imports_of(REPOSITORY / f"{module}.py")}
    assert not names & {"trainer", "serving"}


def test_only_the_search_imports_optuna() -> None:
    """Training needs neither the package nor the second that its import takes."""
    users = [path for path in files_of("trainer") if "optuna" in {name.split(".")[0] for name in imports_of(path)}]
    assert {path.parent.name for path in users} == {"tuning"}


MAY_IMPORT = {
    # Settings and errors, below everything.
    "trainer.command_line": set(),
    "trainer.errors": set(),
    "trainer.precision": set(),
    "trainer.presets": set(),
    "trainer.settings": {"errors", "precision"},
    "trainer.config": {"errors", "precision", "presets", "settings"},
    # What a run keeps on disk.
    "trainer.runs": {"command_line", "config", "errors", "precision", "settings"},
    # Along the data.
    "trainer.pictures": set(),
    "trainer.data": {"errors", "pictures"},
    "trainer.evaluation": {"command_line", "config", "data", "errors", "runs"},
    "trainer.training": {"config", "data", "errors", "evaluation", "precision", "runs", "settings"},
    "trainer.publishing": {"command_line", "data", "errors", "evaluation", "pictures", "runs"},
    # What calls the rooms in order.
    "trainer.initial_weights": {"config", "errors", "publishing", "runs", "training"},
    "trainer.steps": {
        "command_line",
        "config",
        "data",
        "errors",
        "evaluation",
        "initial_weights",
        "precision",
        "publishing",
        "runs",
        "training",
    },
    "trainer.run": {"config", "errors", "publishing", "runs", "steps", "training"},
    "trainer.learn": {"command_line", "config", "data", "errors", "publishing", "run", "runs", "settings", "training"},
    "trainer.seeds": {"command_line", "config", "errors", "precision", "run", "runs", "tuning"},
    "trainer.tuning": {"command_line", "config", "errors", "evaluation", "run", "runs", "settings", "training"},
    # On the other side of the contract.
    "serving.client": set(),
    "serving.commands": {"client", "exit_codes"},
    "serving.web": {"client", "exit_codes"},
    "serving.local_server": {"exit_codes"},
}
"""For each room the rooms of its own package that it may import; `serving.contract` is open to all."""


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_the_rooms_before_it(room: str) -> None:
    package, name = room.split(".")
    place = REPOSITORY / package / name
    paths = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    assert paths
    imported = {
        parts[1]
        for path in paths
        for parts in (full_name.split(".") for full_name in imports_of(path))
        if parts[0] == package and len(parts) > 1 and parts[1][0].islower()
    }
    assert imported - {name, "contract", "__version__"} <= MAY_IMPORT[room]


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
