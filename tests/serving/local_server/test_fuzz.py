"""Malformed requests get the right code, harm nobody and leave nothing behind."""

import collections
import itertools
from pathlib import Path

import pytest

from tests.serving.conftest import serve_in_a_process
from tests.serving.malformed import Malformed, malformed_requests
from tests.serving.saved_models import images_of, write_version
from tests.serving.stubs import Stubs, digits_of, predict_request


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base_path = tmp_path_factory.mktemp("fuzz") / "digits"
    write_version(base_path, 1)
    with serve_in_a_process(base_path) as server:
        yield server


@pytest.mark.parametrize(("seed", "warmup", "count"), [(1, 500, 500)])
def test_malformed_requests_get_the_right_code_and_leak_nothing(server, seed, warmup, count):
    assault(server, seed, warmup, count)


@pytest.mark.slow
def test_ten_thousand_malformed_requests_get_the_right_code_and_leak_nothing(server):
    assault(server, seed=2, warmup=1000, count=10_000)


def assault(server, seed, warmup, count):
    process, stubs = server
    requests = malformed_requests(seed)
    codes = collections.Counter()
    for number, request in enumerate(itertools.islice(requests, warmup + count)):
        code = code_of(stubs, request)
        assert code in request.codes, f"request {number} of seed {seed}: {request.kind} got {code}"
        codes[code] += 1
        if number % 10 == 0:
            digit = number // 10 % 10
            assert digits_of(stubs.predict(predict_request(images_of(digit)))) == [digit]
        if number == warmup:
            settled = resident_bytes(process.pid)
    assert process.poll() is None
    grown = resident_bytes(process.pid) / settled - 1
    print(f"{sum(codes.values())} requests: {dict(codes)}; resident memory {grown:+.2%} from {settled >> 20} MiB")
    assert grown < 0.05


def code_of(stubs: Stubs, request: Malformed) -> str:
    call = stubs.channel.unary_unary(request.method).future(request.content, timeout=20)
    return call.code().name


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096
