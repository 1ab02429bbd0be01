"""Runs requests on threads, and joins queued requests into one run of the model if batching is on.

A run costs nearly the same for one image as for eight. While one runs, requests queue up; the next run takes all that
can be joined. No request waits while the model is idle, and throughput grows with concurrency.

Only the event loop uses the queue, so it needs no lock; the threads receive complete batches. A lock shared per request
halved the throughput, because threads woke each other for Python's interpreter lock.
"""

import asyncio
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import grpc
import numpy as np

from serving.local_server.config import BatchingParameters
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
    """A queue of requests, and the threads that run them, alone or joined into batches. Call `run` on one event loop.

    Args:
        parameters: How to join requests; None runs every request alone, on one thread per core.
    """

    def __init__(self, parameters: BatchingParameters | None):
        self._parameters = parameters
        self._queue: deque[_Task] = deque()
        self._queued_rows = 0
        self._idle_threads = parameters.num_batch_threads if parameters else os.cpu_count() or 1
        self._last = _Run()
        self._dispatch_timer: asyncio.TimerHandle | None = None
        self._batches: queue.SimpleQueue[list[_Task] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True)
            for number in range(self._idle_threads)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, servable: Servable, signature: LoadedSignature, inputs: Mapping[str, np.ndarray]) -> Outputs:
        """Return the outputs for `inputs`, maybe computed together with other requests.

        Raises:
            StatusError: The error of the run, which all requests joined in it share. With batching also INVALID_ARGUMENT
                if the inputs differ in their number of rows or have more than `max_batch_size`, and UNAVAILABLE if the
                queue is full.
        """
        parameters = self._parameters
        if parameters is None or not signature.can_batch:
            return await self._submit(servable, signature, inputs, 1)
        rows = _count_rows(inputs)
        if rows > parameters.max_batch_size:
            raise invalid_argument(
                f"Task size {rows} is larger than maximum input batch size {parameters.max_batch_size}"
            )
        if self._queued_rows + rows > parameters.max_run_size * parameters.max_enqueued_batches:
            raise unavailable("The batch scheduling queue to which this task was submitted is full")
        if rows <= parameters.max_run_size:
            return await self._submit(servable, signature, inputs, rows)
        parts = await asyncio.gather(
            *(
                self._submit(servable, signature, part, len(next(iter(part.values()))))
                for part in _split(inputs, rows, parameters.max_run_size)
            )
        )
        return {alias: np.concatenate([part[alias] for part in parts]) for alias in parts[0]}

    async def _submit(
        self, servable: Servable, signature: LoadedSignature, inputs: Mapping[str, np.ndarray], rows: int
    ) -> Outputs:
        loop = asyncio.get_running_loop()
        task = _Task(servable, signature, inputs, rows, loop.create_future(), loop.time())
        self._queue.append(task)
        self._queued_rows += rows
        self._schedule_dispatch(loop)
        return await task.future

    def close(self) -> None:
        """End the threads. No request may be in flight."""
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
        if self._parameters is None or self._queued_rows >= self._parameters.max_run_size:
            return 0.0
        if self._parameters.batch_timeout_micros is not None:
            return self._queue[0].arrived + self._parameters.batch_timeout_micros / 1e6 - now
        # Clients that just got a response tend to send the next request: wait for as many. A single client never waits.
        if len(self._queue) >= self._last.tasks:
            return 0.0
        return self._last.ended + min(PATIENCE_RUNS * self._last.seconds, PATIENCE_SECONDS) - now

    def _take_batch(self) -> list[_Task]:
        """Take the first task and, in order, the others that can join its run."""
        batch: list[_Task] = []
        left: deque[_Task] = deque()
        rows = 0
        for task in self._queue:
            if task.future.cancelled():  # its deadline has passed
                self._queued_rows -= task.rows
            elif not batch or self._fits(task, batch[0], rows):
                batch.append(task)
                rows += task.rows
            else:
                left.append(task)
        self._queue = left
        self._queued_rows -= rows
        return batch

    def _fits(self, task: _Task, first: _Task, rows: int) -> bool:
        return (
            self._parameters is not None
            and rows + task.rows <= self._parameters.max_run_size
            and task.signature.can_batch
            and task.joins(first)
        )

    def _work(self) -> None:
        while batch := self._batches.get():
            started = time.perf_counter()
            _run_batch(batch, self._parameters)
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
    if any(array.ndim == 0 for array in inputs.values()):
        raise invalid_argument("Batching Run() input tensors must have at least one dimension")
    counts = {len(array) for array in inputs.values()}
    if len(counts) != 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return counts.pop()


def _run_batch(batch: list[_Task], parameters: BatchingParameters | None) -> None:
    sizes = parameters.allowed_batch_sizes if parameters and batch[0].signature.can_batch else ()
    try:
        if len(batch) > 1 or sizes:
            _run_together(batch, sizes)
        else:
            batch[0].outcome = batch[0].servable.run(batch[0].signature, batch[0].inputs)
    except Exception as error:  # Keep the thread alive: without it no later request is answered.
        if not isinstance(error, StatusError):
            error = StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        for task in batch:
            task.outcome = error


def _run_together(batch: list[_Task], allowed_sizes: tuple[int, ...]) -> None:
    first = batch[0]
    rows = sum(task.rows for task in batch)
    size = next((allowed for allowed in allowed_sizes if allowed >= rows), rows) if rows else 0
    joined = {alias: _join([task.inputs[alias] for task in batch], size - rows) for alias in first.inputs}
    outputs = first.servable.run(first.signature, joined)
    if any(array.ndim == 0 or len(array) != size for array in outputs.values()):
        raise failed_precondition(
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors"
        )
    start = 0
    for task in batch:
        task.outcome = {alias: array[start : start + task.rows] for alias, array in outputs.items()}
        start += task.rows


def _join(arrays: list[np.ndarray], padding_rows: int) -> np.ndarray:
    joined = np.concatenate(arrays)
    if not padding_rows:
        return joined
    return np.concatenate([joined, joined[:1].repeat(padding_rows, axis=0)])  # real rows: zeros may be invalid


def _split(inputs: Mapping[str, np.ndarray], rows: int, size: int) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, rows, size):
        yield {alias: array[start : start + size] for alias, array in inputs.items()}
