"""A load on a server, and what it did to the answers: throughput, latency, errors.

Closed loop: a fixed number of requests under way, as a set of callers that wait for their answers. Open loop: requests
at random (Poisson) times whatever the answers do, as independent users; a request's latency counts from the moment it
was due, so a server that stalls cannot slow down its own examination (coordinated omission; as in MLPerf's server
scenario). Retries are off unless asked for: the server is measured, not the client's patience.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

import numpy as np

from serving.client.client import AsyncDigitClient
from serving.client.config import ClientConfig
from serving.client.errors import RequestError
from serving.contract import IMAGE_SHAPE

PERCENTILES = (50, 90, 95, 99)
PROGRESS_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is sent, and for how long."""

    concurrency: int | None = None
    """Closed loop: requests under way."""
    rate: float | None = None
    """Open loop: requests per second on average; excludes `concurrency`."""
    batch: int = 1
    """Images per request."""
    seconds: float = 10.0
    """Measured, after the warm-up."""
    warmup_seconds: float = 2.0
    """Sent, but not measured."""
    seed: int = 0
    """Of the images and of the open loop's times."""

    def __post_init__(self) -> None:
        if (self.concurrency is None) == (self.rate is None):
            raise ValueError("a load has either a concurrency or a rate")
        for name in ("concurrency", "rate", "batch", "seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be above 0, not {value}")
        if self.warmup_seconds < 0:
            raise ValueError(f"warmup_seconds must not be below 0, but is {self.warmup_seconds}")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of a load."""

    load: Load
    requests: int
    """Answered, of those sent (or due) in the measured time. Latencies are theirs."""
    errors: dict[str, int]
    """Failed, of those sent (or due) in the measured time, by status code."""
    requests_per_second: float
    """Answers that came in the measured time, per second."""
    images_per_second: float
    average_ms: float | None
    """None where nothing was answered."""
    percentiles_ms: dict[str, float]
    """"p50" and so on; empty where nothing was answered."""

    @staticmethod
    def columns() -> tuple[str, ...]:
        """The header over `row`s."""
        return ("load", "batch", "req/s", "images/s", "avg ms", *(f"p{p} ms" for p in PERCENTILES), "errors")

    def row(self) -> tuple[str, ...]:
        """The report as a line of a table."""
        load = f"{self.load.concurrency} at once" if self.load.concurrency else f"{self.load.rate:g}/s"
        times = [self.average_ms, *(self.percentiles_ms.get(f"p{p}") for p in PERCENTILES)]
        return (
            load,
            str(self.load.batch),
            f"{self.requests_per_second:,.1f}",
            f"{self.images_per_second:,.1f}",
            *("-" if milliseconds is None else f"{milliseconds:.2f}" for milliseconds in times),
            ", ".join(f"{count} {code}" for code, count in sorted(self.errors.items())) or "0",
        )


@dataclass
class _Record:
    """When each request was sent (or due), when it ended, and how. Seconds since the start; one entry per request."""

    started: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)


def measure(target: str, config: ClientConfig, load: Load, progress: TextIO | None = None) -> Report:
    """Puts `load` on `target` and says what came of it; a line per second goes to `progress`.

    Raises:
        RequestError: if the very first request fails; then there is nothing to measure. Later failures are counted.
    """
    return asyncio.run(_measure(target, config, load, progress))


async def _measure(target: str, config: ClientConfig, load: Load, progress: TextIO | None) -> Report:
    images = np.random.default_rng(load.seed).integers(0, 256, (load.batch, *IMAGE_SHAPE), np.uint8)
    record, start = _Record(), 0.0
    end_seconds = load.warmup_seconds + load.seconds

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
            await _closed_loop(send, load.concurrency, elapsed, end_seconds)
        elif load.rate is not None:
            await _open_loop(send, load.rate, load.seed, elapsed, end_seconds)
        if ticker:
            ticker.cancel()
    return _summarize(record, load)


async def _closed_loop(send: Callable, concurrency: int, elapsed: Callable[[], float], end_seconds: float) -> None:
    async def caller() -> None:
        while (now := elapsed()) < end_seconds:
            await send(now)

    await asyncio.gather(*(caller() for _ in range(concurrency)))


async def _open_loop(send: Callable, rate: float, seed: int, elapsed: Callable[[], float], end_seconds: float) -> None:
    gaps, due = np.random.default_rng(seed), 0.0
    async with asyncio.TaskGroup() as under_way:
        while (due := due + gaps.exponential(1 / rate)) < end_seconds:
            await asyncio.sleep(due - elapsed())
            under_way.create_task(send(due))


async def _tick(record: _Record, load: Load, elapsed: Callable[[], float], progress: TextIO) -> None:
    seen = 0
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        codes, seen = Counter(record.codes[seen:]), len(record.codes)
        phase = "warm-up" if elapsed() < load.warmup_seconds else "measuring"
        failed = codes.total() - codes["OK"]
        print(f"{elapsed():5.0f} s  {phase:9}  {codes['OK']:7,} answered  {failed:,} failed", file=progress, flush=True)


def _summarize(record: _Record, load: Load) -> Report:
    started, ended, codes = np.array(record.started), np.array(record.ended), np.array(record.codes, dtype=str)
    begin, end = load.warmup_seconds, load.warmup_seconds + load.seconds
    measured, answered = (started >= begin) & (started < end), codes == "OK"
    milliseconds = 1000 * (ended - started)[measured & answered]
    rate = float((answered & (ended >= begin) & (ended < end)).sum() / load.seconds)
    percentiles = np.percentile(milliseconds, PERCENTILES) if len(milliseconds) else []
    return Report(
        load=load,
        requests=len(milliseconds),
        errors=dict(Counter(codes[measured & ~answered].tolist())),
        requests_per_second=rate,
        images_per_second=rate * load.batch,
        average_ms=float(milliseconds.mean()) if len(milliseconds) else None,
        percentiles_ms={f"p{p}": float(value) for p, value in zip(PERCENTILES, percentiles, strict=False)},
    )
