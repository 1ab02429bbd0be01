"""The load generator's counts, on a server with scripted responses."""

import io
import itertools
import threading
import time

import grpc
import pytest
from tensorflow_serving.apis import predict_pb2

from serving.client.config import ClientConfig
from serving.client.errors import ResponseError, UnavailableError
from serving.commands import load
from serving.commands.load import MAX_LATE_SECONDS, MAX_OUTSTANDING, Load, measure
from tests.serving.scripted_server import predict_response, scripted_server

ONCE = ClientConfig(max_attempts=1)


def _respond_after(seconds):
    return lambda request, _: time.sleep(seconds) or predict_response(request)


def test_closed_loop_keeps_its_number_of_requests_in_flight():
    lock, in_flight, most = threading.Lock(), [0], [0]

    def predict(request, _):
        with lock:
            in_flight[0] += 1
            most[0] = max(most[0], in_flight[0])
        time.sleep(0.02)
        with lock:
            in_flight[0] -= 1
        return predict_response(request)

    with scripted_server(predict=predict) as target:
        report = measure(target, ONCE, Load(concurrency=4, seconds=1, warmup_seconds=0.2))
    assert most[0] == 4
    assert not report.errors
    assert report.requests_per_second <= 4 / 0.02
    assert report.requests_per_second == pytest.approx(report.requests, abs=8)
    assert 20 <= report.percentiles_ms["p50"] <= report.percentiles_ms["p99"]


def test_open_loop_sends_at_its_rate_however_slow_the_responses():
    with scripted_server(predict=_respond_after(0.2)) as target:
        report = measure(target, ONCE, Load(rate=100, batch=3, seconds=2, warmup_seconds=0.5))
    assert report.requests == pytest.approx(200, rel=0.3)  # Poisson: three standard deviations are 42
    assert report.images_per_second == pytest.approx(3 * report.requests_per_second)
    assert report.average_ms >= 200


def test_open_loop_bounds_the_outstanding_requests_and_counts_those_not_sent(monkeypatch):
    monkeypatch.setattr(load, "MAX_OUTSTANDING", 5)
    wake = threading.Event()
    calls = itertools.count()

    def stall(request, _):
        if next(calls):
            wake.wait(4)  # longer than it takes until all requests are due, also on a slow machine
        return predict_response(request)

    with scripted_server(predict=stall) as target:
        report = measure(target, ONCE, Load(rate=200, seconds=0.5, warmup_seconds=0))
        wake.set()
    assert report.requests == 5
    assert report.not_sent == pytest.approx(95, abs=40)
    assert report.row()[-1] == str(report.not_sent)


def test_open_loop_ends_in_time_if_this_process_cannot_send_so_fast():
    with scripted_server() as target:
        start = time.monotonic()
        report = measure(target, ONCE, Load(rate=200_000, seconds=0.5, warmup_seconds=0))
        seconds = time.monotonic() - start
        as_many = measure(target, ONCE, Load(concurrency=MAX_OUTSTANDING, seconds=0.5, warmup_seconds=0))
    assert seconds < 10  # It took as long as sending 100,000 requests takes.
    assert report.requests + report.not_sent == pytest.approx(100_000, rel=0.03)
    # Lateness is bounded; beyond it, a request waits for those that this process has in flight, on a busy machine longer.
    assert report.average_ms < 1000 * (0.5 + MAX_LATE_SECONDS) + 2 * as_many.average_ms


@pytest.mark.parametrize("kind", [{"rate": 50}, {"concurrency": 1}])
def test_a_response_that_breaks_the_contract_ends_either_loop_with_its_error(kind):
    calls = itertools.count()

    def empty(request, _):
        return predict_pb2.PredictResponse() if next(calls) else predict_response(request)

    with scripted_server(predict=empty) as target, pytest.raises(ResponseError):
        measure(target, ONCE, Load(**kind, seconds=1, warmup_seconds=0))


def test_open_loop_counts_the_wait_of_requests_that_were_due_during_a_stall():
    calls = itertools.count()
    free = threading.Lock()

    def one_at_a_time(request, _):
        with free:
            if next(calls) == 25:  # due after half a second
                time.sleep(1)
        return predict_response(request)

    with scripted_server(predict=one_at_a_time) as target:
        report = measure(target, ONCE, Load(rate=50, seconds=2, warmup_seconds=0))
    assert report.percentiles_ms["p50"] < 1000 < report.percentiles_ms["p99"] + 100
    assert report.percentiles_ms["p90"] > 400  # half of those due in the stall waited for more than half of it


def test_failures_are_counted_by_code_and_not_as_requests():
    turn = itertools.count()

    def predict(request, context):
        number = next(turn)
        if number and number % 3 == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "full")
        if number and number % 3 == 2:
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        return predict_response(request)

    with scripted_server(predict=predict) as target:
        report = measure(target, ONCE, Load(concurrency=1, seconds=0.5, warmup_seconds=0))
    assert set(report.errors) == {"UNAVAILABLE", "INTERNAL"}
    assert report.requests == pytest.approx(report.errors["INTERNAL"], abs=2)


def test_warm_up_is_discarded():
    calls = itertools.count()

    def slow_at_first(request, _):
        time.sleep(1 if next(calls) < 2 else 0)
        return predict_response(request)

    with scripted_server(predict=slow_at_first) as target:
        report = measure(target, ONCE, Load(concurrency=1, seconds=0.5, warmup_seconds=1.5))
    assert report.percentiles_ms["p99"] < 1000


def test_without_a_success_there_is_no_latency():
    turn = itertools.count()

    def only_the_first(request, context):
        return context.abort(grpc.StatusCode.INTERNAL, "broken") if next(turn) else predict_response(request)

    with scripted_server(predict=only_the_first) as target:
        report = measure(target, ONCE, Load(concurrency=1, seconds=0.2, warmup_seconds=0))
    assert (report.requests, report.average_ms, report.percentiles_ms) == (0, None, {})
    assert "-" in report.row()


def test_without_a_server_there_is_an_error_and_no_measurement():
    with pytest.raises(UnavailableError):
        measure("127.0.0.1:1", ONCE, Load(concurrency=1, seconds=100))


def test_progress_is_a_line_per_second():
    progress = io.StringIO()
    with scripted_server(predict=_respond_after(0.05)) as target:
        measure(target, ONCE, Load(concurrency=1, seconds=1.2, warmup_seconds=1), progress)
    warmup, measuring, *_ = progress.getvalue().splitlines()
    assert "succeeded  0 failed" in warmup
    assert "measuring" in measuring


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"concurrency": 1, "rate": 1},
        {"concurrency": 0},
        {"rate": -1},
        {"rate": 1, "batch": 0},
        {"rate": 1, "seconds": 0},
        {"rate": float("nan")},
        {"rate": float("inf")},
        {"rate": 1, "seconds": float("inf")},
        {"rate": 1, "warmup_seconds": -1},
        {"rate": 1, "warmup_seconds": float("nan")},
    ],
)
def test_an_invalid_load_is_rejected(settings):
    with pytest.raises(ValueError, match=r"load needs either|must be above 0 and finite|must be at least 0"):
        Load(**settings)
