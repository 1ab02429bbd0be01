"""Puts a load on a server and reports throughput, latency and errors.

Closed loop: a fixed number of requests in flight; each response is followed by the next request. Open loop: requests at
random (Poisson) times, however slow the responses are, like independent users. An open-loop latency counts from the
moment the request was due, so that a stalled server cannot slow down its own measurement (this avoids coordinated
omission; as in MLPerf's server scenario). Retries are off by default, so that every failure of the server shows.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

import numpy as np

from serving.client.async_client import AsyncDigitClient
from serving.client.config import ClientConfig
from serving.client.errors import RequestError
from serving.contract import IMAGE_SHAPE

PERCENTILES = (50, 90, 95, 99)
PROGRESS_SECONDS = 1.0
MAX_OUTSTANDING = 1000
"""Open loop: requests that are due while so many have no response are counted and not sent. This bounds the memory."""
MAX_LATE_SECONDS = 0.5
"""Open loop: how long after the measured time a request that was due in it may still be sent."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Which requests are sent, and for how long."""

    concurrency: int | None = None
    """Closed loop: requests in flight."""
    rate: float | None = None
    """Open loop: requests per second on average; excludes `concurrency`."""
    batch: int = 1
    """Images per request."""
    seconds: float = 10.0
    """How long to measure, after the warm-up."""
    warmup_seconds: float = 2.0
    """How long requests are sent before the measurement."""
    seed: int = 0
    """Seed of the images and of the open loop's times."""

    def __post_init__(self) -> None:
        if (self.concurrency is None) == (self.rate is None):
            raise ValueError("a load needs either a concurrency or a rate")
        for name in ("concurrency", "rate", "batch", "seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:  # NaN fails every comparison
                raise ValueError(f"{name} must be above 0 and finite, not {value}")
        if not 0 <= self.warmup_seconds < math.inf:
            raise ValueError(f"warmup_seconds must be at least 0 and finite, not {self.warmup_seconds}")


@dataclass(frozen=True, kw_only=True)
class Report:
    """The measurements under one load."""

    load: Load
    requests: int
    """Successful requests among those sent (or due) in the measured time. The latencies are theirs."""
    errors: dict[str, int]
    """Failed requests among those sent (or due) in the measured time, by status code."""
    not_sent: int
    """Open loop: requests due in the measured time that were not sent, because `MAX_OUTSTANDING` had no response, or this
    process could not send so fast."""
    requests_per_second: float
    """Successful responses received in the measured time, per second."""
    images_per_second: float
    average_ms: float | None
    """None if no request succeeded."""
    percentiles_ms: dict[str, float]
    """"p50" and so on; empty if no request succeeded."""

    @staticmethod
    def columns() -> tuple[str, ...]:
        """Return the header of the table of `row`s."""
        return (
            "load",
            "batch",
            "req/s",
            "images/s",
            "avg ms",
            *(f"p{p} ms" for p in PERCENTILES),
            "errors",
            "not sent",
        )

    def row(self) -> tuple[str, ...]:
        """Return the report as a row of the table."""
        load = f"{self.load.concurrency} in flight" if self.load.concurrency else f"{self.load.rate:g}/s"
        times = [self.average_ms, *(self.percentiles_ms.get(f"p{p}") for p in PERCENTILES)]
        return (
            load,
            str(self.load.batch),
            f"{self.requests_per_second:,.1f}",
            f"{self.images_per_second:,.1f}",
            *("-" if milliseconds is None else f"{milliseconds:.2f}" for milliseconds in times),
            ", ".join(f"{count} {code}" for code, count in sorted(self.errors.items())) or "0",
            str(self.not_sent),
        )


@dataclass
class _Record:
    """One entry per request: when it was sent (or due), when it ended, and its status code. Seconds since the start."""

    started: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)


def measure(target: str, config: ClientConfig, load: Load, progress: TextIO | None = None) -> Report:
    """Put `load` on `target` and return the measurements; write a line per second to `progress`.

    Raises:
        RequestError: if the very first request fails, because there is nothing to measure. Later failures are counted.
    """
    return asyncio.run(_measure(target, config, load, progress))


async def _measure(target: str, config: ClientConfig, load: Load, progress: TextIO | None) -> Report:
    images = upright_strokes(load.batch, load.seed)
    record, start, not_sent = _Record(), 0.0, 0

    def elapsed() -> float:
        return time.perf_counter() - start

    async with AsyncDigitClient(target, config) as client:

        async def send(due: float) -> None:
            code = "OK"
            try:
                await client.predict(images)
            except RequestError as error:
                code = error.code
            record.started.append(due)
            record.ended.append(elapsed())
            record.codes.append(code)

        await client.predict(images)
        start = time.perf_counter()
        ticker = asyncio.create_task(_tick(record, load, elapsed, progress)) if progress else None
        if load.concurrency is not None:
            await _closed_loop(send, load.concurrency, elapsed, load.warmup_seconds + load.seconds)
        elif load.rate is not None:
            not_sent = await _open_loop(send, load, load.rate, elapsed)
        if ticker:
            ticker.cancel()
    return _summarize(record, load, not_sent)


def upright_strokes(count: int, seed: int) -> np.ndarray:
    """Return images of a one, uint8 [count, 28, 28], no two alike.

    The model is sure of them. It looks at images of which it is unsure, such as noise, more than once.
    """
    generator = np.random.default_rng(seed)
    images = np.zeros((count, *IMAGE_SHAPE), np.uint8)
    images[:, 4:24, 12:15] = generator.integers(200, 256, (count, 20, 3))
    return images


async def _closed_loop(send: Callable, concurrency: int, elapsed: Callable[[], float], end_seconds: float) -> None:
    async def caller() -> None:
        while (now := elapsed()) < end_seconds:
            await send(now)

    await asyncio.gather(*(caller() for _ in range(concurrency)))


async def _open_loop(send: Callable, load: Load, rate: float, elapsed: Callable[[], float]) -> int:
    """Send requests at random times; return how many were due in the measured time and not sent."""
    random, due, not_sent, outstanding = np.random.default_rng(load.seed), 0.0, 0, set[asyncio.Task]()
    begin, end = load.warmup_seconds, load.warmup_seconds + load.seconds
    try:
        async with asyncio.TaskGroup() as pending:
            while (due := due + random.exponential(1 / rate)) < end:
                await asyncio.sleep(due - elapsed())
                if elapsed() > end + MAX_LATE_SECONDS:
                    # The number of requests that would still be due has this distribution.
                    return not_sent + int(due >= begin) + int(random.poisson(rate * (end - max(due, begin))))
                if len(outstanding) == MAX_OUTSTANDING:
                    not_sent += due >= begin
                    continue
                task = pending.create_task(send(due))
                outstanding.add(task)
                task.add_done_callback(outstanding.discard)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None  # The closed loop raises it without a group, too.
    return not_sent


async def _tick(record: _Record, load: Load, elapsed: Callable[[], float], progress: TextIO) -> None:
    seen = 0
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        codes, seen = Counter(record.codes[seen:]), len(record.codes)
        phase = "warm-up" if elapsed() < load.warmup_seconds else "measuring"
        failed = codes.total() - codes["OK"]
        print(
            f"{elapsed():5.0f} s  {phase:9}  {codes['OK']:7,} succeeded  {failed:,} failed", file=progress, flush=True
        )


def _summarize(record: _Record, load: Load, not_sent: int) -> Report:
    started, ended, codes = np.array(record.started), np.array(record.ended), np.array(record.codes, dtype=str)
    begin, end = load.warmup_seconds, load.warmup_seconds + load.seconds
    measured, succeeded = (started >= begin) & (started < end), codes == "OK"
    milliseconds = 1000 * (ended - started)[measured & succeeded]
    rate = float((succeeded & (ended >= begin) & (ended < end)).sum() / load.seconds)
    percentiles = np.percentile(milliseconds, PERCENTILES) if len(milliseconds) else []
    return Report(
        load=load,
        requests=len(milliseconds),
        errors=dict(Counter(codes[measured & ~succeeded].tolist())),
        not_sent=not_sent,
        requests_per_second=rate,
        images_per_second=rate * load.batch,
        average_ms=float(milliseconds.mean()) if len(milliseconds) else None,
        percentiles_ms={f"p{p}": float(value) for p, value in zip(PERCENTILES, percentiles, strict=False)},
    )
