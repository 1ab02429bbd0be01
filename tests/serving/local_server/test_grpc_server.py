"""The gRPC server beyond the conformance cases: limits, metrics, tensors, the command line."""

import socket
import subprocess
import sys
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    predict_pb2,
)

import serving.local_server.model.tensors as tensors
from serving import contract
from serving.local_server.errors import StatusError
from serving.local_server.server import LocalServer
from tests.ports import free_port
from tests.serving.saved_models import images_of, write_two_versions, write_version
from tests.serving.stubs import Stubs, digits_of, model_spec, predict_request, rejected
from tests.waiting import wait_until

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METRICS = "/monitoring/prometheus/metrics"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base_path = write_two_versions(tmp_path_factory.mktemp("rpc") / "digits")
    with LocalServer(
        base_path, rest_port=0, enable_grpc_healthcheck_service=True, max_message_bytes=1_000_000
    ) as server:
        yield server


@pytest.fixture(scope="module")
def stubs(server):
    with Stubs(server.target) as stubs:
        yield stubs


def test_health_reports_the_complete_server(stubs):
    response = health_pb2_grpc.HealthStub(stubs.channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_bytes_that_are_no_message_are_internal(stubs):
    with rejected("INTERNAL"):
        stubs.channel.unary_unary(PREDICT)(b"\xff\xff\xff", timeout=60)


def test_a_message_above_the_limit_is_resource_exhausted(stubs):
    with rejected("RESOURCE_EXHAUSTED"):
        stubs.predict(predict_request(np.zeros((1000, *contract.IMAGE_SHAPE, 2), np.uint8)))
    assert digits_of(stubs.predict(predict_request(images_of(1)))) == [2]


def test_a_long_error_message_is_truncated_so_that_it_arrives(stubs):
    with rejected("NOT_FOUND", "ééé"):
        stubs.predict(predict_request(images_of(1), name="é" * 5000))


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int8, np.bool_, np.complex64])
def test_images_of_another_dtype_are_invalid(stubs, dtype):
    with rejected("INVALID_ARGUMENT"):
        stubs.predict(predict_request(images_of(1).astype(dtype)))


def test_a_shape_of_terabytes_is_rejected_before_memory_is_allocated(stubs):
    request = predict_pb2.PredictRequest(model_spec=model_spec())
    tensor = request.inputs[contract.IMAGES]
    tensor.dtype = 4
    tensor.int_val.append(7)
    for size in (10**9, 28, 28):
        tensor.tensor_shape.dim.add(size=size)
    with rejected("INVALID_ARGUMENT"):
        stubs.predict(request)


def test_metrics_have_tensorflow_servings_names_and_count_by_status(server, stubs):
    def page():
        return urllib.request.urlopen(f"http://{server.rest_target}{METRICS}").read().decode()

    def count(status):
        line = f':tensorflow:serving:request_count{{model_name="digits",status="{status}"}} '
        return sum(int(found.removeprefix(line)) for found in page().splitlines() if found.startswith(line))

    before = {status: count(status) for status in ("OK", "FAILED_PRECONDITION")}
    stubs.predict(predict_request(images_of(1)))
    with rejected("FAILED_PRECONDITION"):
        stubs.predict(predict_request(images_of(1), signature="sketches"))
    assert {status: count(status) - before[status] for status in before} == {"OK": 1, "FAILED_PRECONDITION": 1}
    labels = 'model_name="digits",API="Predict",entrypoint="GRPC"'
    assert f':tensorflow:serving:request_latency_bucket{{{labels},le="+Inf"}} {count("OK")}\n' in page()
    assert "# TYPE :tensorflow:serving:request_latency histogram\n" in page()
    assert ":tensorflow:cc:saved_model:load_attempt_count{" in page()


def test_a_request_whose_deadline_passes_counts_as_deadline_exceeded(tmp_path, held_runs):
    write_version(tmp_path / "digits", 1)
    with LocalServer(tmp_path / "digits", rest_port=0) as server, Stubs(server.target, server.rest_target) as stubs:
        stubs.status()  # connects, so that the next request arrives before its deadline
        with rejected("DEADLINE_EXCEEDED"):
            stubs.predict(predict_request(images_of(1)), timeout=1)
        line = ':tensorflow:serving:request_count{model_name="digits",status="DEADLINE_EXCEEDED"} 1'
        wait_until(lambda: line in stubs.rest.get(METRICS)[1].splitlines())
        held_runs.release.set()


def test_unknown_model_names_do_not_grow_the_metrics(server, stubs):
    for number in range(5):
        with rejected("NOT_FOUND"):
            stubs.predict(predict_request(images_of(1), name=f"letters{number}"))
    page = urllib.request.urlopen(f"http://{server.rest_target}{METRICS}").read().decode()
    assert "letters" not in page
    assert 'model_name="",status="NOT_FOUND"' in page


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, -2.0]], np.float32),
        np.array([1e300, np.inf]),
        np.array([-5, 7], np.int8),
        np.array([2**16 - 1], np.uint16),
        np.array([-(2**63), 2**63 - 1], np.int64),
        np.array([2**64 - 1], np.uint64),
        np.array([True, False]),
        np.array([b"a", b""], object),
        np.zeros((0, 3), np.int32),
        np.array(7, np.uint8),
    ],
)
def test_tensors_round_trip_and_are_equal_to_tensorflows(array):
    proto = tensor_pb2.TensorProto()
    tensors.encode(array, proto)
    assert not proto.tensor_content
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)
    spec = tensors.SignatureTensor("x", "x:0", proto.dtype, (None,) * array.ndim)
    for sent in (proto, tf.make_tensor_proto(array)):
        received = tensors.decode(sent, spec, max_bytes=1000)
        assert received.dtype == array.dtype
        np.testing.assert_array_equal(received, array)


def test_a_tensor_above_the_limit_of_bytes_is_rejected_before_it_is_made():
    proto = tf.make_tensor_proto(np.float32(1), shape=[10, 1000, 1000])
    spec = tensors.SignatureTensor("x", "x:0", proto.dtype, (None, None, None))
    with pytest.raises(StatusError, match="needs more than"):
        tensors.decode(proto, spec, max_bytes=1000)


def test_the_flags_need_neither_tensorflow_nor_grpc():
    code = (
        "import argparse, sys; from serving.local_server.command import add_arguments;"
        "add_arguments(argparse.ArgumentParser());"
        "print([name for name in ('tensorflow', 'grpc', 'numpy') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--batching-parameters-file", "/dev/null"], "--enable-batching"),
        (["--poll-wait-seconds", "0"], "poll_wait_seconds"),
        (["--latest", "0"], "at least 1"),
        (["--poll-wait-seconds", "inf"], "poll_wait_seconds"),
        (["--rest-timeout-seconds", "nan"], "rest_timeout_seconds"),
        (["--grace-period-seconds", "inf"], "grace_period_seconds"),
        (["--label", "stable"], "NAME=VERSION"),
    ],
)
def test_bad_flags_are_rejected_by_name(tmp_path, flags, complaint):
    command = [sys.executable, "-m", "serving", "serve", str(tmp_path), *flags]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert process.returncode == 2
    assert complaint in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("flags", [["--label", "stable=1"], ["--latest", "2"]])
def test_settings_of_one_model_are_rejected_beside_a_file_of_models(tmp_path, flags):
    command = [sys.executable, "-m", "serving", "serve", "--model-config-file", str(tmp_path / "models"), *flags]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert process.returncode == 2
    assert "versions and labels are those of" in process.stderr


@pytest.mark.parametrize("host", ["::1", "[::1]", "::"])
def test_it_listens_on_ipv6(tmp_path, host):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    base_path = write_version(tmp_path / "digits", 1).parent
    with LocalServer(base_path, host=host, port=free_port(), rest_port=0) as server:
        assert server.target
        assert server.target.startswith(f"[{host.strip('[]')}]:")
        with Stubs(server.target) as stubs:
            assert digits_of(stubs.predict(predict_request(images_of(1)))) == [1]
        url = f"http://{server.rest_target}/v1/models/digits"
        with urllib.request.urlopen(url, timeout=60) as response:
            assert response.status == 200


def test_a_channel_to_a_stopped_server_is_unavailable(tmp_path):
    with LocalServer(write_two_versions(tmp_path / "digits")) as server:
        target = server.target
    with Stubs(target) as stubs, pytest.raises(grpc.RpcError) as caught:
        stubs.predict(predict_request(images_of(1)))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
