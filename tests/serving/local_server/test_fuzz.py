"""Malformed requests get the right code, affect no other request and leak no memory.

The soak grows with the environment variables SOAK_REQUESTS (100,000 in full) and SOAK_RELOADS (1,000 in full).
"""

import collections
import http.client
import itertools
import json
import os
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import model_management_pb2

from serving import contract
from tests.serving.conftest import model_entry, serve_in_a_process
from tests.serving.malformed import Malformed, malformed_bodies, malformed_requests
from tests.serving.saved_models import images_of, write_two_versions
from tests.serving.stubs import Stubs, digits_of, predict_request
from tests.waiting import wait_until

PREDICT = f"/v1/models/{contract.MODEL_NAME}:predict"
SOAK_REQUESTS = int(os.environ.get("SOAK_REQUESTS", "5000"))
SOAK_RELOADS = int(os.environ.get("SOAK_RELOADS", "40"))


@pytest.fixture(scope="module")
def base_path(tmp_path_factory):
    return write_two_versions(tmp_path_factory.mktemp("fuzz") / contract.MODEL_NAME)


@pytest.fixture(scope="module")
def server(base_path):
    with serve_in_a_process(base_path, "--versions", "1") as server:
        yield server


def test_malformed_requests_get_the_right_code_and_leak_nothing(server):
    attack(server, seed=1, warmup=500, count=500)


@pytest.mark.slow
def test_ten_thousand_malformed_requests_get_the_right_code_and_leak_nothing(server):
    attack(server, seed=2, warmup=1000, count=10_000)


def attack(server, seed, warmup, count):
    process, stubs = server
    codes = collections.Counter()
    for number, request in enumerate(itertools.islice(malformed_requests(seed), warmup + count)):
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


def test_malformed_bodies_are_bad_requests_and_leak_nothing(server):
    attack_rest(server, seed=1, warmup=300, count=300)


@pytest.mark.slow
def test_ten_thousand_malformed_bodies_are_bad_requests_and_leak_nothing(server):
    attack_rest(server, seed=2, warmup=1000, count=10_000)


def attack_rest(server, seed, warmup, count):
    process, stubs = server
    connection = http.client.HTTPConnection(stubs.rest.address, timeout=60)

    def post(body):
        connection.request("POST", PREDICT, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    for number, body in enumerate(itertools.islice(malformed_bodies(seed), warmup + count)):
        status, document = post(body)
        assert status == 400, f"body {number} of seed {seed}: {body[:200]!r} got {status} {document}"
        assert set(document) == {"error"}
        if number % 10 == 0:
            digit = number // 10 % 10
            status, document = post(json.dumps({"instances": images_of(digit).tolist()}).encode())
            assert (status, document["predictions"][0][contract.DIGIT]) == (200, digit)
        if number == warmup:
            settled = resident_bytes(process.pid)
    connection.close()
    assert process.poll() is None
    grown = resident_bytes(process.pid) / settled - 1
    print(f"{warmup + count} bodies; resident memory {grown:+.2%} from {settled >> 20} MiB")
    assert grown < 0.05


@pytest.mark.slow
def test_many_requests_and_reloads_leave_memory_and_descriptors_as_they_were(base_path):
    with serve_in_a_process(base_path, "--versions", "1", "--poll-wait-seconds", "0.05") as (process, stubs):
        settled = None
        for cycle in range(SOAK_RELOADS + SOAK_RELOADS // 4):
            if cycle == SOAK_RELOADS // 4:  # allocators and caches have settled
                settled = resident_bytes(process.pid), descriptors(process.pid)
            version = 1 + cycle % 2
            reload_to(stubs, base_path, version)
            for _ in range(SOAK_REQUESTS // SOAK_RELOADS):
                assert digits_of(stubs.predict(predict_request(images_of(3)))) == [2 + version]
        memory, files = settled
        grown = resident_bytes(process.pid) / memory - 1
        print(f"{SOAK_REQUESTS} requests, {SOAK_RELOADS} reloads; resident memory {grown:+.2%} from {memory >> 20} MiB")
        assert grown < 0.05
        assert descriptors(process.pid) == files


def reload_to(stubs, base_path, version):
    request = model_management_pb2.ReloadConfigRequest()
    entry = model_entry(base_path).replace("latest { num_versions: 1 }", f"specific {{ versions: {version} }}")
    text_format.Parse(f"model_config_list {{ {entry} }}", request.config)
    stubs.model.HandleReloadConfigRequest(request, timeout=60)
    wait_until(lambda: stubs.state(version) == "AVAILABLE" and stubs.state(3 - version) in (None, "END"))


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def code_of(stubs: Stubs, request: Malformed) -> str:
    call = stubs.channel.unary_unary(request.method).future(request.content, timeout=60)
    return call.code().name


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096
