"""Prometheus metrics under TensorFlow Serving's names.

The text format is written here because Prometheus' client library adds `_total` to the names of counters.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterator

PATH = "/monitoring/prometheus/metrics"
"""TF Serving's default path."""

REQUEST_COUNT = ":tensorflow:serving:request_count"
REQUEST_LATENCY = ":tensorflow:serving:request_latency"
RUNTIME_LATENCY = ":tensorflow:serving:runtime_latency"
WARMUP_LATENCY = ":tensorflow:serving:model_warmup_latency"
LOAD_ATTEMPTS = ":tensorflow:cc:saved_model:load_attempt_count"

BUCKETS_MICROSECONDS = [10 * 1.8**power for power in range(33)]
"""Upper bounds of every latency histogram, as in TF Serving: 10 us to about 20 minutes."""

_BOUNDS = [*(f"{bound:.6g}" for bound in BUCKETS_MICROSECONDS), "+Inf"]

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters and latency histograms. All methods are thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[Labels, int]] = {}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {}

    def count(self, name: str, **labels: str) -> None:
        with self._lock:
            series = self._counters.setdefault(name, {})
            series[tuple(labels.items())] = series.get(tuple(labels.items()), 0) + 1

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        with self._lock:
            series = self._histograms.setdefault(name, {})
            series.setdefault(tuple(labels.items()), _Histogram()).add(seconds * 1e6)

    def render(self) -> str:
        """Return all metrics in Prometheus' text format."""
        with self._lock:
            return "\n".join([*self._counter_lines(), *self._histogram_lines(), ""])

    def _counter_lines(self) -> Iterator[str]:
        for name, series in self._counters.items():
            yield f"# TYPE {name} counter"
            for labels, value in series.items():
                yield f"{name}{{{_text(labels)}}} {value}"

    def _histogram_lines(self) -> Iterator[str]:
        for name, series in self._histograms.items():
            yield f"# TYPE {name} histogram"
            for labels, histogram in series.items():
                total = 0
                for bound, count in zip(_BOUNDS, histogram.counts, strict=True):
                    total += count
                    yield f"{name}_bucket{{{_text((*labels, ('le', bound)))}}} {total}"
                yield f"{name}_sum{{{_text(labels)}}} {histogram.sum:.6g}"
                yield f"{name}_count{{{_text(labels)}}} {total}"


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_MICROSECONDS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(BUCKETS_MICROSECONDS, value)] += 1
        self.sum += value


def _text(labels: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
