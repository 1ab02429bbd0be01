"""Trains the trials of a search, each in a process of its own, several at once.

The memory of trials in processes of their own does not add up, and a trial that the system kills does not end the search.
A trial reports its validation losses to the search, which answers whether to stop early. When the search is killed, its
trials end too: each watches a pipe that the search holds open. `trainer/seeds.py` trains its runs with the same pool.
"""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from trainer.config import TrainConfig
from trainer.errors import ConfigError, ExitCode, OutOfMemoryError, PrunedError, RunError, exit_code_of
from trainer.runs.console import SILENT, Console, LogFormat, open_console
from trainer.runs.result import TRIAL_FILE, recorded

ENDED_WELL = (ExitCode.OK, ExitCode.DIVERGED, ExitCode.MEMORY)
"""Exit statuses of a trial that are a result of the search. Any other ends the search."""

STOP_SECONDS = 120.0
"""How long a trial may take to save its state."""

LOCK_SECONDS = 20.0
"""How long to wait for a trial of a search that was just killed to end."""


class TrialError(RunError):
    """A trial failed for a reason that every other trial shares, such as missing data or a full disk."""

    def __init__(self, message: str, exit_code: ExitCode):
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class _Worker:
    """A trial that is being trained."""

    config: TrainConfig
    started: datetime
    process: BaseProcess
    messages: Connection
    lifeline: Connection
    """Held open; the trial ends when it closes."""
    slot: int


@dataclass(frozen=True)
class Task:
    """What a process does with its config. Both are module-level names: the process imports them."""

    train: Callable[[TrainConfig, datetime, Console, Callable[[int, float], None]], object]
    """Gets the config, the time at which the process started, the console, and what takes epoch and validation loss."""
    result_file: str
    """The file in the run's folder that tells how it ended."""


def _train_trial(
    config: TrainConfig, now: datetime, console: Console, on_validation: Callable[[int, float], None]
) -> None:
    from trainer.run import train_trial
    from trainer.runs.folder import open_run_folder

    with open_run_folder(config, now, lock_seconds=LOCK_SECONDS) as config:
        train_trial(config, now, console, on_validation)


TRIAL = Task(_train_trial, TRIAL_FILE)
"""Train, and score on validation data alone."""


class Pool:
    """Trains up to `jobs` trials at once."""

    def __init__(self, jobs: int, folder: Path, log_format: LogFormat, task: Task = TRIAL):
        """Prepare for `jobs` processes.

        Args:
            jobs: how many trials to train at once; with GPUs each gets one of its own.
            folder: takes the output of each trial, if there are several at once.
            log_format: of the progress, if there is one trial at a time.
            task: what each process does.

        Raises:
            ConfigError: there are fewer GPUs than jobs.
        """
        gpus = _gpus(os.environ)
        if gpus and jobs > len(gpus):
            raise ConfigError(f"jobs is {jobs}, but there are {len(gpus)} GPU(s); expected at most that many")
        self._jobs, self._folder, self._log_format, self._task = jobs, folder, log_format, task
        self._gpus = gpus if jobs > 1 else []
        # Forked from a process that has imported TensorFlow, which saves seconds for each trial. The import also starts
        # CUDA, which does not survive a fork.
        self._context = SpawnContext() if gpus else ForkServerContext()
        self._context.set_forkserver_preload([__name__, "trainer.training.loop", "trainer.runs.tracking"])

    def train(
        self,
        configs: Iterator[TrainConfig],
        on_validation: Callable[[str, int, float], bool],
        on_end: Callable[[str], None],
    ) -> None:
        """Train all trials; the next config is taken when a process is free.

        Args:
            configs: one per trial, with the name of its run.
            on_validation: gets run, epoch and validation loss; returns whether the trial should stop early.
            on_end: gets the run of a trial that has ended, with its result in the task's file.

        Raises:
            TrialError: a trial failed for a reason that the others share. They have been stopped, their states saved.
        """
        active: dict[Connection, _Worker] = {}
        try:
            while True:
                while len(active) < self._jobs and (config := next(configs, None)):
                    slot = min(set(range(self._jobs)) - {worker.slot for worker in active.values()})
                    worker = self._start(config, slot)
                    active[worker.messages] = worker
                if not active:
                    return
                for messages in wait(list(active)):
                    worker = active[messages]  # type: ignore[index]
                    try:
                        epoch, loss = worker.messages.recv()
                    except EOFError:
                        self._finish(worker)
                        del active[worker.messages]
                        on_end(worker.config.run)
                    else:
                        worker.messages.send(on_validation(worker.config.run, epoch, loss))
        finally:
            for worker in active.values():
                worker.process.terminate()
                worker.messages.close()  # A trial that waits for an answer would wait for the whole STOP_SECONDS.
            for worker in active.values():
                worker.process.join(STOP_SECONDS)
                worker.process.kill()

    def _start(self, config: TrainConfig, slot: int) -> _Worker:
        messages, theirs = self._context.Pipe()
        watched, lifeline = self._context.Pipe(duplex=False)
        environment, output = {}, None
        if self._jobs > 1:
            threads = max(1, len(os.sched_getaffinity(0)) // self._jobs)
            environment = {"TF_NUM_INTRAOP_THREADS": os.environ.get("TF_NUM_INTRAOP_THREADS") or str(threads)}
            output = self._folder / f"{config.run}.log"
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[slot]
        now = datetime.now(UTC)
        arguments = (self._task, config, now, self._log_format, output, environment, theirs, watched)
        process = self._context.Process(target=_train, args=arguments, name=config.run, daemon=True)
        process.start()
        theirs.close()
        watched.close()
        return _Worker(config, now, process, messages, lifeline, slot)

    def _finish(self, worker: _Worker) -> None:
        """Wait for a trial that closed its pipe, and see to it that it has a result.

        Raises:
            TrialError: it has none, and neither would the next.
        """
        worker.process.join()
        code, run = worker.process.exitcode or 0, worker.config.run
        if code == -signal.SIGKILL:
            message = f"{run} was killed by SIGKILL, as the system does when memory runs out"
            record = worker.config.run_dir / self._task.result_file
            with contextlib.suppress(OutOfMemoryError), recorded(record, worker.started):
                raise OutOfMemoryError(message)
        elif code not in ENDED_WELL:
            is_known = code in list(ExitCode)
            log = f"; see {self._folder / run}.log" if self._jobs > 1 else ""
            reason = ExitCode(code).name.lower() if is_known else f"exit status {code}"
            raise TrialError(f"run {run} failed ({reason}){log}", ExitCode(code) if is_known else ExitCode.BUG)


def _train(
    task: Task,
    config: TrainConfig,
    now: datetime,
    log_format: LogFormat,
    output: Path | None,
    environment: Mapping[str, str],
    messages: Connection,
    lifeline: Connection,
) -> None:
    """Train one trial in this process; it exits with the status that `train` would have."""
    os.setpgrp()  # A Ctrl-C in the terminal reaches the search, which stops its trials one by one.
    os.environ.update(environment)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    if output:
        with output.open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    from trainer.runs.signals import stoppable

    console = SILENT if output else open_console(log_format)
    try:
        with stoppable():
            task.train(config, now, console, partial(_report, config, messages))
    except PrunedError:
        pass  # a result, noted in the task's file
    except BaseException as error:
        console.stop()
        if exit_code_of(error) not in (*ENDED_WELL, ExitCode.STOPPED):  # the search says that it was stopped
            print(f"error: {config.run}: {type(error).__name__}: {error}", flush=True)
        os._exit(exit_code_of(error))


def _report(config: TrainConfig, messages: Connection, epoch: int, loss: float) -> None:
    """Report the validation loss to the search.

    Raises:
        PrunedError: the search answered that the trial should stop.
    """
    if epoch < config.epochs:  # after the last one there is nothing to stop
        is_worse = False
        # Without an answer, the search is ending and has sent a signal, which the training obeys.
        with contextlib.suppress(EOFError, OSError):
            messages.send((epoch, loss))
            is_worse = messages.recv()
        if is_worse:
            raise PrunedError(f"stopped early after epoch {epoch}: its validation loss is {loss:.4f}")


def _end_with(lifeline: Connection) -> None:
    """End this process when the search has ended: nobody would read its result."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(ExitCode.STOPPED)


def _gpus(environment: Mapping[str, str]) -> list[str]:
    """Return the GPUs that a process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name not in ("", "-1")]
    try:
        found = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(number) for number, _ in enumerate(found.stdout.splitlines())] if found.returncode == 0 else []
