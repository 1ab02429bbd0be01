"""Dynamic batching: joins queued requests into one run of the model.

A run costs nearly the same for one image as for eight. While one runs, requests queue up; the next run takes all that
can be joined. No request waits while the model is idle, and throughput grows with concurrency.

Only the event loop uses the queue, so it needs no lock; the threads receive complete batches. A lock shared per request
halved the throughput, because threads woke each other for Python's interpreter lock.
"""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
import numpy as np

from serving.local_server.errors import StatusError, failed_precondition, invalid_argument, unavailable
from serving.local_server.model.servable import LoadedSignature, Servable

PATIENCE_RUNS = 3
PATIENCE_SECONDS = 0.002
"""How long a run waits for as many requests as the previous run had: this multiple of the previous run's time, at most
this many seconds. Measured with 32 requests in flight on 2 cores: for short runs (1.6 ms) batches are larger and cost less
CPU; for long runs (10 ms) a wait of 10 ms costs a fifth of the throughput, a wait of 2 ms costs none."""


Outputs = dict[str, np.ndarray]


@dataclass(eq=False)
class _Task:
    servable: Servable
    signature: LoadedSignature
    inputs: Mapping[str, np.ndarray]
    rows: int
    future: asyncio.Future
    arrived: float
    outcome: Outputs | StatusError | None = None

    def joins(self, other: "_Task") -> bool:
        return (
            self.servable is other.servable
            and self.signature is other.signature
            and all(array.shape[1:] == other.inputs[alias].shape[1:] for alias, array in self.inputs.items())
        )


class Batcher:
    """A bounded queue of requests, and the threads that run them in batches. Call `run` on one event loop.

    Args:
        max_batch_size: Most rows in one run.
        max_enqueued_batches: Full batches that may wait.
        timeout_seconds: How long the first request in the queue waits for others; None adapts to the load.
        threads: Number of simultaneous runs.
    """

    def __init__(self, *, max_batch_size: int, max_enqueued_batches: int, timeout_seconds: float | None, threads: int):
        self._max_batch_size = max_batch_size
        self._capacity = max_batch_size * max_enqueued_batches
        self._timeout_seconds = timeout_seconds
        self._queue: deque[_Task] = deque()
        self._queued_rows = 0
        self._idle_threads = threads
        self._last = _Run()
        self._dispatch_timer: asyncio.TimerHandle | None = None
        self._batches: queue.SimpleQueue[list[_Task] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"batch-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    async def run(self, servable: Servable, signature: LoadedSignature, inputs: Mapping[str, np.ndarray]) -> Outputs:
        """Returns the outputs for `inputs`, computed together with other queued requests.

        Raises:
            StatusError: UNAVAILABLE if the queue is full, INVALID_ARGUMENT if the inputs differ in their number of rows,
                else the error of the run. An error of one request does not affect the others.
        """
        loop = asyncio.get_running_loop()
        rows = _count_rows(inputs) if signature.can_batch else 1
        if self._queued_rows + rows > self._capacity:
            raise unavailable("The batch scheduling queue to which this task was submitted is full")
        task = _Task(servable, signature, inputs, rows, loop.create_future(), loop.time())
        self._queue.append(task)
        self._queued_rows += rows
        self._schedule_dispatch(loop)
        return await task.future

    def close(self) -> None:
        """Ends the threads. No request may be in flight."""
        for _ in self._threads:
            self._batches.put(None)
        for thread in self._threads:
            thread.join()

    def _schedule_dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._idle_threads and not self._dispatch_timer:
            # After the current turn of the loop, so that other requests received in it can join.
            self._dispatch_timer = loop.call_later(0, self._dispatch, loop)

    def _dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._dispatch_timer = None
        while self._idle_threads and self._queue:
            wait = self._seconds_to_wait(loop.time())
            if wait > 0:
                self._dispatch_timer = loop.call_later(wait, self._dispatch, loop)
                return
            if batch := self._take_batch():
                self._idle_threads -= 1
                self._batches.put(batch)

    def _seconds_to_wait(self, now: float) -> float:
        if self._queued_rows >= self._max_batch_size:
            return 0.0
        if self._timeout_seconds is not None:
            return self._queue[0].arrived + self._timeout_seconds - now
        # Clients that just got a response tend to send the next request: wait for as many. A single client never waits.
        if len(self._queue) >= self._last.tasks:
            return 0.0
        return self._last.ended + min(PATIENCE_RUNS * self._last.seconds, PATIENCE_SECONDS) - now

    def _take_batch(self) -> list[_Task]:
        """Takes the first task and, in order, the others that can join its run."""
        batch: list[_Task] = []
        left: deque[_Task] = deque()
        rows = 0
        for task in self._queue:
            if task.future.cancelled():  # its deadline has passed
                self._queued_rows -= task.rows
            elif not batch or (
                task.signature.can_batch and task.joins(batch[0]) and rows + task.rows <= self._max_batch_size
            ):
                batch.append(task)
                rows += task.rows
            else:
                left.append(task)
        self._queue = left
        self._queued_rows -= rows
        return batch

    def _work(self) -> None:
        while batch := self._batches.get():
            started = time.perf_counter()
            _run_batch(batch)
            loop = batch[0].future.get_loop()
            loop.call_soon_threadsafe(self._deliver, loop, batch, time.perf_counter() - started)
            del batch  # otherwise its arrays stay in memory until the next request

    def _deliver(self, loop: asyncio.AbstractEventLoop, batch: list[_Task], seconds: float) -> None:
        self._idle_threads += 1
        self._last = _Run(len(batch), seconds, loop.time())
        for task in batch:
            if task.future.done():
                continue
            if isinstance(task.outcome, StatusError):
                task.future.set_exception(task.outcome)
            else:
                task.future.set_result(task.outcome)
        if self._queue:
            self._schedule_dispatch(loop)


@dataclass(frozen=True)
class _Run:
    tasks: int = 0
    seconds: float = 0.0
    ended: float = 0.0


def _count_rows(inputs: Mapping[str, np.ndarray]) -> int:
    counts = {len(array) for array in inputs.values()}
    if len(counts) != 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return counts.pop()


def _run_batch(batch: list[_Task]) -> None:
    try:
        if len(batch) > 1:
            _run_together(batch)
            return
    except Exception:
        # One bad picture fails the complete run. Run alone, each request gets its own outputs or error.
        pass
    for task in batch:
        _run_alone(task)


def _run_alone(task: _Task) -> None:
    try:
        task.outcome = task.servable.run(task.signature, task.inputs)
    except StatusError as error:
        task.outcome = error
    except Exception as error:
        # If the thread ended here, every later request would wait for ever.
        task.outcome = StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def _run_together(batch: list[_Task]) -> None:
    first = batch[0]
    joined = {alias: np.concatenate([task.inputs[alias] for task in batch]) for alias in first.inputs}
    outputs = first.servable.run(first.signature, joined)
    total = sum(task.rows for task in batch)
    if any(len(array) != total for array in outputs.values()):
        raise failed_precondition(
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors"
        )
    start = 0
    for task in batch:
        task.outcome = {alias: array[start : start + task.rows] for alias, array in outputs.items()}
        start += task.rows
