"""Settings: where their values come from, which are rejected, and which may change when a run is resumed."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.conftest import run_trainer
from trainer.cli import main
from trainer.config import TrainConfig, hyperparameters, refuse_mismatch, resolve, to_json, what_it_computes
from trainer.errors import ConfigError, ExitCode
from trainer.presets import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_says_its_name(preset: str) -> None:
    assert resolve(preset).preset == preset


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"epochs": 3, "seed": 7}')
    config = resolve("fast", file, {"seed": 9})
    assert (config.global_batch_size, config.epochs, config.seed) == (256, 3.0, 9)


def test_a_saved_config_given_back_is_the_same_config(tmp_path: Path) -> None:
    config = resolve("accurate", flags={"artifacts": tmp_path, "data_dir": tmp_path / "data", "seed": 3, "run": "r"})
    (tmp_path / "config.json").write_text(to_json(config))
    assert resolve(file=tmp_path / "config.json") == dataclasses.replace(config, run=""), "all but the name of that run"


def test_runs_are_compared_by_their_main_settings_and_by_what_is_not_at_its_default() -> None:
    plain, fast = hyperparameters(TrainConfig()), hyperparameters(resolve("fast", flags={"evaluate_every": 50}))
    assert plain["dropout"] == fast["dropout"] == 0
    assert "zoom" not in plain
    assert (fast["zoom"], fast["evaluate_every"]) == (0.2, 50)
    # TensorBoard shows the first five columns until the user ticks others.
    assert sorted(plain)[:5] == ["dataset", "dropout", "epochs", "global_batch_size", "learning_rate"]
    assert not {"beta_1", "preset", "artifacts", "min_accuracy"} & {*plain, *fast}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0.0}, "epochs is 0.0; expected a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": float("inf")}, "learning_rate is inf"),
        ({"dropout": 1.0}, "dropout is 1.0; expected 0 <= value < 1"),
        ({"min_accuracy": 97.5}, "min_accuracy is 97.5; expected 0 <= value <= 1"),
        ({"model": "vgg"}, "model is 'vgg'; expected one of mlp, lenet, cnn, resnet"),
        ({"global_batch_size": 64.0}, "global_batch_size is 64.0; expected int"),
        ({"deterministic": 1}, "deterministic is 1; expected bool"),
        ({"seed": True}, "seed is True; expected int"),
        ({"seed": 2**32}, "expected a number below 2"),
        ({"epochs": 1e12}, r"epochs is 1e\+12; expected at most 1,000,000"),
        ({"run": "../elsewhere"}, "run is '../elsewhere'"),
        ({"run": "-x"}, "run is '-x'; expected a plain folder name"),
        ({"run": "a\0b"}, r"run is 'a\\x00b'; expected text in UTF-8"),
        ({"artifacts": Path("a\udcff")}, r"artifacts is 'a\\udcff'; expected text in UTF-8"),
        ({"epochs": 10**400}, "epochs is 1000"),
        ({"replicas": 3}, "global_batch_size is 64 with 3 replicas; expected a multiple of 3"),
        ({"profile": "20"}, "profile is '20'; expected START:STOP"),
        ({"profile": "20:20"}, "profile is '20:20'; expected START:STOP"),
        ({"evaluate_every": -1}, "evaluate_every is -1; expected a number not below 0"),
        ({"replicas": 2, "strategy": "default"}, "strategy is 'default' with 2 replicas"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        TrainConfig(**values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected one JSON object"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"lerning_rate": 1}', "lerning_rate"),
        ('{"preset": ["fast"]}', "unknown preset \\['fast'\\]"),
    ],
)
def test_a_config_file_that_is_not_one_is_refused_by_name(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        resolve(file=file)


def test_a_saved_config_with_earlier_field_names_is_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"pen_pixels": 0.8, "gaps": 0.1, "flags": 0.3, "coarse": 0.4, "clean_epochs": 1}')
    config = resolve(file=file)
    assert (config.stroke_width_jitter_pixels, config.stroke_gap_fraction) == (0.8, 0.1)
    assert (config.serif_ones_fraction, config.low_resolution_fraction, config.unaugmented_epochs) == (0.3, 0.4, 1.0)


def test_a_setting_added_after_a_run_was_saved_counts_as_its_default() -> None:
    current = what_it_computes(TrainConfig())
    saved = {name: value for name, value in current.items() if name != "shear_degrees"}
    refuse_mismatch(saved, current, "run 'r'")
    with pytest.raises(ConfigError, match=r"run 'r' cannot be resumed: shear_degrees was 0\.0 and is 5\.0"):
        refuse_mismatch(saved, what_it_computes(TrainConfig(shear_degrees=5.0)), "run 'r'")


def test_a_file_that_names_its_run_still_gets_the_presets_values(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"run": "mine", "seed": 3}')
    config = resolve("fast", file=file, flags={"epochs": 1.0})
    assert (config.preset, config.dataset, config.model) == ("fast", "mnist", "lenet")
    assert (config.run, config.seed, config.epochs) == ("mine", 3, 1.0)


def test_a_saved_config_is_complete_so_no_preset_changes_it(tmp_path: Path) -> None:
    config = resolve("fast", flags={"seed": 3})
    (tmp_path / "config.json").write_text(to_json(config))
    assert resolve("accurate", file=tmp_path / "config.json") == config


def test_an_unknown_preset_lists_those_there_are(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"preset": "best"}')
    with pytest.raises(ConfigError, match="'best'; expected one of quickstart, sprint, fast, accurate, frontier"):
        resolve(file=file)


def test_bad_flags_exit_with_2_before_anything_is_written(tmp_path: Path) -> None:
    for flags, message in (
        (["--epochs", "0"], "epochs is 0.0"),
        (["--epochs", "many"], "invalid float value"),
        (["--config", tmp_path / "none.json"], "cannot be read"),
    ):
        done = run_trainer("train", "--artifacts", tmp_path / "artifacts", *flags)
        assert done.returncode == ExitCode.USAGE
        assert message in done.stderr
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("count", ["0", "-1"])
def test_a_number_of_samples_below_1_is_refused(tmp_path: Path, count: str, capsys) -> None:
    assert main(["data", "samples", str(tmp_path / "samples"), "--count", count]) == ExitCode.USAGE
    assert f"--count is {count}; expected a number above 0" in capsys.readouterr().err
    assert not (tmp_path / "samples").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--epoch", "2"], "unrecognized argument --epoch; did you mean --epochs?"),
        (["train", "fast"], "unrecognized argument fast\nAll flags: python -m trainer train --help"),
        (["train", "--preset"], "argument --preset: expected one argument\nAll flags: python -m trainer train --help"),
        (["train", "--preset", "fest"], "did you mean fast?"),
        (["trian"], "did you mean train?"),
        (["rollback", "--alow-none"], "did you mean --allow-none?"),
    ],
)
def test_a_typing_error_is_refused_once_with_the_nearest_name(arguments: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == ExitCode.USAGE
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 2


def test_help_shows_the_values_of_the_chosen_preset(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--preset", "accurate", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"fractions are allowed. [{PRESETS['accurate']['epochs']}]" in said


def test_help_and_config_import_neither_tensorflow_nor_numpy() -> None:
    code = (
        "import sys, contextlib, trainer.cli\n"
        "with contextlib.suppress(SystemExit): trainer.cli.main(['train', '--help'])\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules), 'imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--global-batch-size" in done.stdout
    assert "Examples per step, over all replicas together." in " ".join(done.stdout.split())
