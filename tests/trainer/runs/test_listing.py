"""`python -m trainer runs`: the list of runs, from the files that runs leave."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.cli import main
from trainer.config import resolve, to_json
from trainer.errors import ExitCode
from trainer.runs.folder import LOCK_FILE
from trainer.runs.listing import list_runs
from trainer.runs.lock import locked
from trainer.runs.result import RunResult


def write_run(runs: Path, name: str, **results: RunResult) -> Path:
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(to_json(resolve("quickstart", flags={"run": name})))
    for file, result in results.items():
        (folder / f"{file}.json").write_text(result.to_json())
    return folder


def ended(code: ExitCode = ExitCode.OK, day: int = 1, **fields: object) -> RunResult:
    times = {"started": f"2026-01-{day:02}T12:00:00+00:00", "finished": f"2026-01-{day:02}T12:02:05+00:00"}
    return dataclasses.replace(RunResult(exit_code=code, **times), **fields)


def test_each_state_of_a_run_is_listed_the_latest_run_last(tmp_path: Path) -> None:
    scored = {"evaluation": {"accuracy": 0.98765}}
    published = {"published": {"version": 20260102120000}}
    write_run(tmp_path, "second", result=ended(day=2, **scored, **published))
    write_run(tmp_path, "first", result=ended(ExitCode.GATE, **scored))
    write_run(tmp_path, "later", result=ended(ExitCode.GATE, 3, **scored), publish=ended(day=4, **scored, **published))
    write_run(tmp_path, "trial", trial=ended(day=5, validation={"accuracy": 0.5}))
    write_run(tmp_path, "worse", trial=ended(day=5, message="done"))
    write_run(tmp_path, "halted", result=ended(ExitCode.STOPPED, 6))
    write_run(tmp_path, "killed")
    (write_run(tmp_path, "broken") / "result.json").write_text("{")
    with locked(write_run(tmp_path, "now") / LOCK_FILE, busy=""):
        runs = list_runs(tmp_path)
    assert {run.run: run.state for run in runs} == {
        "broken": "unreadable",
        "killed": "interrupted",
        "now": "running",
        "first": "refused",
        "second": "published",
        "later": "published",
        "trial": "trained",
        "worse": "stopped early",
        "halted": "stopped",
    }
    assert [run.run for run in runs][-5:] == ["second", "later", "trial", "worse", "halted"]
    later, trial = (next(run for run in runs if run.run == name) for name in ("later", "trial"))
    assert (later.accuracy, later.version, later.seconds) == (0.98765, 20260102120000, 125.0)
    assert (trial.accuracy, trial.split) == (0.5, "validation")


@pytest.mark.parametrize(
    "content", ["{}", '{"exit_code": 99}', '{"evaluation": {}, "finished": "x"}', '{"published": 3}']
)
def test_a_run_with_an_odd_result_is_unreadable_and_the_others_are_listed(tmp_path: Path, content: str) -> None:
    write_run(tmp_path, "good", result=ended())
    (write_run(tmp_path, "odd") / "result.json").write_text(content)
    assert {run.run: run.state for run in list_runs(tmp_path)} == {"good": "trained", "odd": "unreadable"}


def test_the_command_prints_a_table_and_imports_neither_numpy_nor_tensorflow(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "a", result=ended(evaluation={"accuracy": 0.98765}))
    code = (
        "import sys; from trainer.cli import main; main(['runs', '--artifacts', sys.argv[1]]);"
        "assert not {'numpy', 'tensorflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split() == ["a", "trained", "98.77", "%", "2026-01-01", "12:00", "2:05", "-"]


def test_no_run_is_said_so_and_json_is_for_programs(tmp_path: Path, capsys) -> None:
    assert main(["runs", "--artifacts", str(tmp_path)]) == ExitCode.OK
    assert "no run in" in capsys.readouterr().out
    write_run(tmp_path / "runs", "a", result=ended())
    main(["runs", "--artifacts", str(tmp_path), "--log-format", "json"])
    assert json.loads(capsys.readouterr().out)["runs"][0]["state"] == "trained"
