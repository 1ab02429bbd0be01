"""A search for better settings: train with many, compare them on validation data alone.

The first trial has the given settings: what the others have to beat. Optuna chooses the settings of the others and stops
those that are clearly worse. The best few are trained again with other seeds, since the best of many is partly luck.

A trial is a run like any other, <artifacts>/runs/<run>-<number>/, with a record of its own, trial.json. A search that was
stopped or killed is resumed by the same command: finished trials stay, and unfinished ones are resumed from their last
checkpoints. No trial sees the test split; the best one is scored on it when its run is published.
"""

import dataclasses
import gc
import json
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from percent import percent
from trainer.command_line import tensorboard_line
from trainer.config import TrainConfig, refuse_mismatch, resolve, what_it_computes
from trainer.errors import ConfigError
from trainer.runs.atomic import write_atomically
from trainer.runs.console import Console, LogFormat
from trainer.runs.folder import refuse_full_disk
from trainer.runs.lock import locked
from trainer.runs.result import RESULT_FILE, TRIAL_FILE, read_result, refuse_other_data
from trainer.training.loop import DivergedError
from trainer.tuning.figures import draw_importances, draw_trials, write_hparams
from trainer.tuning.options import SearchOptions
from trainer.tuning.pool import Pool
from trainer.tuning.results import Trial, is_result, rank, read_trial, table, to_json, warn
from trainer.tuning.search_space import Dimension, check_values, settings_of
from trainer.tuning.study import Study

LOCK_FILE = ".lock"


class Search:
    """The trials of one search and what has come of them so far."""

    def __init__(
        self,
        config: TrainConfig,
        dimensions: Sequence[Dimension],
        options: SearchOptions,
        console: Console,
    ):
        """Prepare a search; its folder's lock is held from `run` on.

        Args:
            config: the given settings; its run is the name of the search.
            dimensions: what is varied.
            options: how to search.
            console: prints the results.

        Raises:
            ConfigError: some of the values to try cannot work.
        """
        check_values(config, dimensions)
        self._config, self._dimensions, self._options, self._console = config, dimensions, options, console
        self.folder = config.artifacts / "tune" / config.run
        self.trials: dict[int, Trial] = {}

    def run(self, log_format: LogFormat = "text") -> list[Trial]:
        """Run the trials that have not ended; return all, the best first.

        After each, the folder has trials.json, trials.png, importances.png and tensorboard/ of those that have ended.

        Raises:
            ConfigError: a run with such a name belongs to something else, or has other settings or other data.
            BusyError: another process runs this search.
            DivergedError: no trial could be trained to its end.
            RunError: the data cannot be read, or the disk is full.
            StoppedError: a signal came; the states of the trials have been saved.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write to {error.filename or self.folder}: {error.strerror}") from error
        refuse_full_disk(self.folder)
        with locked(self.folder / LOCK_FILE, busy=f"{self.folder}: another process runs this search; wait for it"):
            study = Study(
                self.folder,
                settings_of(self._config, self._dimensions),
                self._dimensions,
                what_all_compute=self._what_all_compute(),
                sampler=self._options.sampler,
                prune=self._options.prune,
                seed=self._config.seed,
            )
            pool = Pool(self._options.jobs, self.folder, log_format)
            self._train_trials(study, pool)
            self._train_finalists(study, pool)
            return rank(list(self.trials.values()))

    def _train_trials(self, study: Study, pool: Pool) -> None:
        count = int(min(self._options.trials, study.size))
        if count < self._options.trials:
            self._console.note(f"There are only {count} different settings.")
        numbers: dict[str, int] = {}

        def configs() -> Iterator[TrainConfig]:
            left = study.running()
            for number in study.numbers():
                if number not in left:
                    self._note(number, study, is_new=False)
            while left or len(study.numbers()) < count:
                number = left.pop(0) if left else study.begin_trial()
                config = self._config_of(number, study.settings(number))
                numbers[config.run] = number
                if self._has_ended(config):  # the search was killed before it could note it
                    self._note(number, study, is_new=True)
                else:
                    yield config

        pool.train(
            configs(),
            on_validation=lambda run, epoch, loss: study.report(numbers[run], epoch, loss),
            on_end=lambda run: self._note(numbers[run], study, is_new=True),
        )
        self._write(study)
        if all(not trial.scores for trial in self.trials.values()):
            outcomes = ", ".join(sorted({trial.outcome for trial in self.trials.values()}))
            raise DivergedError(
                f"none of the {len(self.trials)} trials could be trained to its end ({outcomes}); vary learning_rate over "
                "lower values"
            )

    def _train_finalists(self, study: Study, pool: Pool) -> None:
        """Train the best few with further seeds, unless the seed is varied itself."""
        if self._options.seeds == 1 or any(dimension.name == "seed" for dimension in self._dimensions):
            return
        scored = [trial for trial in self.trials.values() if trial.scores]
        finalists = sorted(scored, key=lambda trial: trial.scores[0].loss)[: self._options.finalists]
        configs = {
            config.run: (trial.number, config) for trial in finalists for config in self._configs_of_seeds(trial)[1:]
        }
        left = [config for _, config in configs.values() if not self._has_ended(config)]
        if left:
            self._console.note(
                f"The best {len(finalists)} are trained with {self._options.seeds} seeds each: {len(left)} more trainings."
            )
        pool.train(iter(left), on_validation=lambda *_: False, on_end=lambda run: self._note_seed(*configs[run]))
        for trial in finalists:
            found = read_trial(trial.number, trial.settings, self._configs_of_seeds(trial))
            assert found, "its first run has ended"
            self.trials[trial.number] = found
        self._write(study)

    def _note(self, number: int, study: Study, *, is_new: bool) -> None:
        """Take up a trial that has ended."""
        settings = study.settings(number)
        trial = read_trial(number, settings, [self._config_of(number, settings)])
        if trial is None:
            raise ConfigError(
                f"{self._config_of(number, settings).run_dir}: the journal of the search says that this trial has ended, "
                f"but its {TRIAL_FILE} is missing; restore the folder, or give this search another --run"
            )
        study.finish(number, trial.loss if trial.scores else None)
        self.trials[number] = trial
        self._refuse_other_data()
        best = min(self.trials.values(), key=lambda trial: trial.loss)
        remark = ", the best so far" if trial is best and trial.scores else ""
        self._console.note(f"trial {len(self.trials)} of {self._options.trials}: {_describe(trial)}{remark}")
        if is_new:
            self._write(study)

    def _note_seed(self, number: int, config: TrainConfig) -> None:
        trial = read_trial(number, self.trials[number].settings, [config])
        if trial:
            self._console.note(f"{config.run}: {_describe(trial)}")

    def _write(self, study: Study) -> None:
        gc.collect()  # A figure refers to itself: without this, the memory of many earlier ones adds up.
        trials = [self.trials[number] for number in sorted(self.trials)]
        text = json.dumps([to_json(trial) for trial in trials], indent=2, allow_nan=False) + "\n"
        write_atomically(self.folder / "trials.json", lambda file: file.write_text(text))
        figures = {"trials": draw_trials(trials, self._dimensions)}
        if importances := study.importances():
            figures["importances"] = draw_importances(importances)
        for name, figure in figures.items():
            write_atomically(self.folder / f"{name}.png", partial(figure.savefig, dpi=110, format="png"))
        write_hparams(self.folder / "tensorboard", trials)

    def _config_of(self, number: int, settings: dict[str, Any]) -> TrainConfig:
        return dataclasses.replace(self._config, **settings, run=f"{self._config.run}-{number:03}")

    def _configs_of_seeds(self, trial: Trial) -> list[TrainConfig]:
        """Return the trial's own run and one for each further seed."""
        first = self._config_of(trial.number, trial.settings)
        seeds = range(first.seed + 1, first.seed + self._options.seeds)
        return [first, *(dataclasses.replace(first, seed=seed, run=f"{first.run}-seed{seed}") for seed in seeds)]

    def _has_ended(self, config: TrainConfig) -> bool:
        """Return whether a run has a result of this search.

        Raises:
            ConfigError: the run belongs to something else.
        """
        result = read_result(config.run_dir / TRIAL_FILE)
        if not result and (config.run_dir / RESULT_FILE).is_file():
            raise ConfigError(f"{config.run_dir}: is a run of `train`; give this search another --run")
        if (saved := config.run_dir / "config.json").is_file():
            refuse_mismatch(what_it_computes(resolve(file=saved)), what_it_computes(config), f"run {config.run!r}")
        return result is not None and is_result(result)

    def _refuse_other_data(self) -> None:
        results = [(trial.run_dir, read_result(trial.run_dir / TRIAL_FILE)) for trial in self.trials.values()]
        refuse_other_data([(run_dir, result) for run_dir, result in results if result])

    def _what_all_compute(self) -> dict[str, Any]:
        varied = {dimension.name for dimension in self._dimensions}
        return {name: value for name, value in what_it_computes(self._config).items() if name not in varied}


def report(search: Search, ranked: Sequence[Trial], console: Console) -> None:
    """Print the table, its warnings and where everything is."""
    console.note(f"\n{table(ranked)}\n")
    for warning in warn(ranked):
        console.note(f"warning: {warning}", style="yellow")
    for name, file in (("Figure", "trials.png"), ("Importance", "importances.png")):
        if (search.folder / file).is_file():
            console.note(f"{name + ':':<12} {search.folder / file}")
    console.note(f"{'TensorBoard:':<12} {tensorboard_line(search.folder / 'tensorboard')}")


def _describe(trial: Trial) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in trial.settings.items())
    if not trial.scores:
        return f"{trial.outcome} ({settings})"
    assert math.isfinite(trial.loss)
    return f"loss {trial.loss:.4f}, accuracy {percent(trial.accuracy)} ({settings})"
