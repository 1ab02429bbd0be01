"""Dynamic batching: one queue, many small requests, few large runs.

A run of the model costs nearly the same for one image as for eight. While one runs, requests queue up; the next run
takes all that fit together. So nobody waits while the model is idle, and throughput grows with concurrency.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
import numpy as np

from serving.server.errors import ServingError, failed_precondition, invalid_argument, unavailable
from serving.server.servable import Servable, Signature

Outputs = dict[str, np.ndarray]


@dataclass(eq=False)
class _Task:
    servable: Servable
    signature: Signature
    inputs: Mapping[str, np.ndarray]
    rows: int
    future: asyncio.Future
    arrived: float = field(default_factory=time.monotonic)
    outcome: Outputs | ServingError | None = None

    def joins(self, other: "_Task") -> bool:
        return (
            self.servable is other.servable
            and self.signature is other.signature
            and all(array.shape[1:] == other.inputs[alias].shape[1:] for alias, array in self.inputs.items())
        )


class Batcher:
    """A bounded queue in front of the model and the threads that empty it.

    Args:
      max_batch_size: most rows in one run.
      max_enqueued_batches: full batches that may wait.
      timeout_seconds: how long the first in the queue waits for others to join it.
      threads: runs at the same time.
    """

    def __init__(self, *, max_batch_size: int, max_enqueued_batches: int, timeout_seconds: float, threads: int):
        self._max_batch_size = max_batch_size
        self._capacity = max_batch_size * max_enqueued_batches
        self._timeout_seconds = timeout_seconds
        self._queue: deque[_Task] = deque()
        self._queued_rows = 0
        self._ready = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"batch-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    async def run(self, servable: Servable, signature: Signature, inputs: Mapping[str, np.ndarray]) -> Outputs:
        """Returns the outputs for `inputs`, run together with whatever else waits.

        Raises:
          ServingError: UNAVAILABLE where the queue is full, INVALID_ARGUMENT where the inputs differ in their number of
            rows, else what the run itself fails with. A failure of one request is not passed on to the others.
        """
        rows = _count_rows(inputs) if signature.can_batch else 1
        task = _Task(servable, signature, inputs, rows, asyncio.get_running_loop().create_future())
        with self._ready:
            if self._closed or self._queued_rows + rows > self._capacity:
                raise unavailable("The batch scheduling queue to which this task was submitted is full")
            self._queue.append(task)
            self._queued_rows += rows
            self._ready.notify()
        return await task.future

    def close(self) -> None:
        """Ends the threads once the queue is empty."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            _run_batch(batch)
            batch[0].future.get_loop().call_soon_threadsafe(_deliver, batch)
            del batch  # or its arrays would live until the next request comes

    def _next_batch(self) -> list[_Task]:
        with self._ready:
            while True:
                while not self._queue and not self._closed:
                    self._ready.wait()
                self._wait_for_more()
                batch = self._take_batch()
                if batch or self._closed:
                    return batch

    def _wait_for_more(self) -> None:
        while self._queue and self._queued_rows < self._max_batch_size and not self._closed:
            remaining = self._queue[0].arrived + self._timeout_seconds - time.monotonic()
            if remaining <= 0:
                return
            self._ready.wait(remaining)

    def _take_batch(self) -> list[_Task]:
        """Takes the first task and, in their order, those that fit into one run with it."""
        batch: list[_Task] = []
        left: deque[_Task] = deque()
        rows = 0
        while self._queue:
            task = self._queue.popleft()
            if task.future.cancelled():  # its deadline has passed: nobody waits for it
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


def _count_rows(inputs: Mapping[str, np.ndarray]) -> int:
    counts = {len(array) for array in inputs.values()}
    if len(counts) != 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return counts.pop()


def _run_batch(batch: list[_Task]) -> None:
    try:
        _run_together(batch) if len(batch) > 1 else _run_alone(batch[0])
    except ServingError:
        # One bad picture fails the whole run. Alone, each gets its own answer, and the message the right index.
        for task in batch:
            _run_alone(task)
    except Exception as error:
        for task in batch:
            task.outcome = ServingError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def _run_alone(task: _Task) -> None:
    try:
        task.outcome = task.servable.run(task.signature, task.inputs)
    except ServingError as error:
        task.outcome = error


def _run_together(batch: list[_Task]) -> None:
    first = batch[0]
    joined = {alias: np.concatenate([task.inputs[alias] for task in batch]) for alias in first.inputs}
    outputs = first.servable.run(first.signature, joined)
    total = sum(task.rows for task in batch)
    if any(len(array) != total for array in outputs.values()):
        raise failed_precondition("Batched output tensor's 0th dimension does not equal the sum of the inputs' ones")
    start = 0
    for task in batch:
        task.outcome = {alias: array[start : start + task.rows] for alias, array in outputs.items()}
        start += task.rows


def _deliver(batch: list[_Task]) -> None:
    for task in batch:
        if task.future.done():
            continue
        if isinstance(task.outcome, ServingError):
            task.future.set_exception(task.outcome)
        else:
            task.future.set_result(task.outcome)
