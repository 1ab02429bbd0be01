"""The trials of a search, as Optuna keeps them: which settings come next, which trials stop early, what has finished.

The journal <artifacts>/tune/<run>/journal.log holds every step, so a search that was killed is resumed without losing a
trial: one that was running keeps its number and its settings. One process writes to it; the lock of the search sees to it.
"""

import itertools
import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from trainer.config import refuse_mismatch
from trainer.errors import ConfigError
from trainer.tuning.options import Sampler
from trainer.tuning.search_space import Choice, Dimension

JOURNAL_FILE = "journal.log"

STARTUP_TRIALS = 8
"""Trials before which TPE has nothing to model and draws at random, and before which no trial is stopped early."""

PRUNED_PERCENTILE = 75.0
"""A trial stops early when its best validation loss so far is worse than that of three quarters of the others."""

PRUNED_AFTER_EPOCHS = 3
"""No trial stops before: the first epochs, with a rising learning rate, say little."""

REDRAWS = 100
"""How often to draw settings again that an earlier trial has; rarely more than a few, since a full space is refused."""


class Study:
    """The trials of one search; open it while holding the search's lock."""

    def __init__(
        self,
        folder: Path,
        given: dict[str, Any],
        dimensions: Sequence[Dimension],
        *,
        what_all_compute: dict[str, Any],
        sampler: Sampler,
        prune: bool,
        seed: int,
    ):
        """Open or begin the study in `folder`.

        Args:
            folder: holds the journal.
            given: the settings of the first trial, which the others have to beat.
            dimensions: what is varied.
            what_all_compute: the settings that all trials share.
            sampler: tpe models which settings are good and draws near them; qmc spreads the trials evenly.
            prune: whether clearly worse trials stop early.
            seed: the settings of a trial are a function of it, of the trial's number and of the trials before.

        Raises:
            ConfigError: the journal is of a search with other settings, or is damaged.
        """
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._given, self._dimensions, self._sampler, self._seed = given, dimensions, sampler, seed
        path = folder / JOURNAL_FILE
        _remove_torn_line(path)
        pruner = optuna.pruners.PercentilePruner(
            PRUNED_PERCENTILE, n_startup_trials=STARTUP_TRIALS, n_warmup_steps=PRUNED_AFTER_EPOCHS
        )
        try:
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(path), lock_obj=_NoLock(str(path)))),
                study_name="search",
                pruner=pruner if prune else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{path}: is damaged ({error}); give this search another --run") from error
        identity = {**what_all_compute, "vary": [repr(dimension) for dimension in dimensions], "sampler": sampler}
        if saved := self._study.user_attrs.get("identity"):
            refuse_mismatch(saved, json.loads(json.dumps(identity)), f"search {folder}")
        else:
            self._enqueue_first()
            self._study.set_user_attr("identity", identity)  # last, so that a search killed here begins again

    @property
    def size(self) -> float:
        """How many different settings there are; infinite if a number varies continuously."""
        given_outside = not self._contains_given()
        return math.prod(dimension.size for dimension in self._dimensions) + given_outside

    def running(self) -> list[int]:
        """Return the trials that a killed search left unfinished; drawn settings stay, missing ones are drawn."""
        left = [trial.number for trial in self._trials(TrialState.RUNNING)]
        for number in left:
            self._study.sampler = self._make_sampler(number)
            self._draw(self._trial(number))
        return [number for number in left if not self._discard_if_repeated(number)]

    def numbers(self) -> list[int]:
        """Return the trials that have begun, without the drawings that were discarded."""
        begun = self._trials(TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return [trial.number for trial in begun if "discarded" not in trial.user_attrs]

    def begin_trial(self) -> int:
        """Begin the next trial; return its number."""
        for _ in range(REDRAWS):
            begun = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
            self._study.sampler = self._make_sampler(len(begun))
            trial = self._study.ask()
            self._draw(trial)
            if not self._discard_if_repeated(trial.number):
                return trial.number
        raise ConfigError(f"no different settings were found in {REDRAWS} drawings; ask for fewer --trials")

    def settings(self, number: int) -> dict[str, Any]:
        """Return the settings of a trial of what is varied."""
        params = self._frozen(number).params
        if number == 0 and not self._contains_given():
            return dict(self._given)
        return {dimension.name: dimension.setting(params[dimension.name]) for dimension in self._dimensions}

    def report(self, number: int, epoch: int, loss: float) -> bool:
        """Note the validation loss of a running trial; return whether it should stop early."""
        trial = self._trial(number)
        if epoch not in self._frozen(number).intermediate_values:
            trial.report(loss, epoch)
        return number != 0 and trial.should_prune()  # the first trial is what the others are compared with

    def finish(self, number: int, loss: float | None) -> None:
        """Note that a trial has ended; `loss` is None for one that stopped early, diverged or ran out of memory."""
        if self._frozen(number).state != TrialState.RUNNING:
            return
        if number == 0 and not self._contains_given():
            self._study.tell(number, state=TrialState.FAIL)  # outside of the space that the samplers model
        elif loss is None:
            self._study.tell(number, state=TrialState.PRUNED)  # to the samplers, worse than all that finished
        else:
            self._study.tell(number, loss)

    def importances(self) -> dict[str, float]:
        """Return how much of the differences in loss each setting explains; empty with fewer than four finished trials."""
        finished = self._trials(TrialState.COMPLETE)
        if len(finished) < 4 or len({trial.value for trial in finished}) < 2:
            return {}
        try:
            return optuna.importance.get_param_importances(self._study)
        except (RuntimeError, ValueError):
            return {}

    def _enqueue_first(self) -> None:
        """Queue the given settings, and a trial for every value of a choice, so that each is tried at least once."""
        self._study.enqueue_trial(self._given if self._contains_given() else {}, skip_if_exists=True)
        choices = [dimension for dimension in self._dimensions if isinstance(dimension, Choice)]
        untried = [
            [(choice.name, value) for value in dict.fromkeys(choice.values) if value != self._given[choice.name]]
            for choice in choices
        ]
        for values in itertools.zip_longest(*untried):
            self._study.enqueue_trial(dict(pair for pair in values if pair), skip_if_exists=True)

    def _draw(self, trial: optuna.Trial) -> None:
        if trial.number == 0 and not self._contains_given():
            return
        for dimension in self._dimensions:
            dimension.suggest(trial)

    def _discard_if_repeated(self, number: int) -> bool:
        """Discard a trial whose settings an earlier one has, and queue random ones that none has.

        Where only whole numbers and choices are varied, a sampler may draw the same settings for ever.
        """
        seen = [self.settings(other) for other in self.numbers() if other != number]
        if self.settings(number) not in seen:
            return False
        trial, generator = self._trial(number), np.random.default_rng([self._seed, number])
        trial.set_user_attr("discarded", "an earlier trial has the same settings")
        self._study.tell(number, state=TrialState.FAIL)
        for _ in range(REDRAWS):
            drawn = {dimension.name: dimension.random(generator) for dimension in self._dimensions}
            if drawn not in seen:
                self._study.enqueue_trial(drawn)
                break
        return True

    def _make_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        # Each trial has a sampler of its own. A single one, made again after a kill, would repeat its first numbers.
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        if self._sampler == "tpe":
            return optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
        independent = optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.QMCSampler(
            seed=self._seed, scramble=True, independent_sampler=independent, warn_independent_sampling=False
        )

    def _contains_given(self) -> bool:
        return all(dimension.contains(self._given[dimension.name]) for dimension in self._dimensions)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _frozen(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _trial(self, number: int) -> optuna.Trial:
        return optuna.Trial(self._study, self._frozen(number)._trial_id)


class _NoLock(JournalFileOpenLock):
    """Optuna's own locks stay behind when their process is killed; the search's lock admits one process already."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _remove_torn_line(journal: Path) -> None:
    """Cut off a last line that a full disk or a power cut left unfinished: Optuna would append to it."""
    if not journal.is_file():
        return
    content = journal.read_bytes()
    if content and not content.endswith(b"\n"):
        with journal.open("rb+") as file:
            file.truncate(content.rfind(b"\n") + 1)
