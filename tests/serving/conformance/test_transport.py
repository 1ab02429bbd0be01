"""Conformance cases 88 to 96: reflection, health, TLS, UNIX socket and metrics. See test_predict.py."""

import subprocess

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from serving import contract
from tests.serving.saved_models import images_of, write_version
from tests.serving.stubs import Stubs, digits_of, predict_request, rejected
from tests.waiting import wait_until

SERVICES = {"tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"}
METRICS = "/monitoring/prometheus/metrics"


@pytest.fixture
def models(tmp_path):
    write_version(tmp_path / contract.MODEL_NAME, 1)
    return tmp_path / contract.MODEL_NAME


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
def test_88_reflection_lists_the_services_and_describes_them(two_versions, version):
    method = two_versions.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="tensorflow.serving.PredictionService"),
    ]
    services, files = method(iter(requests), timeout=60)
    assert {service.name for service in services.list_services_response.service} >= SERVICES
    assert files.file_descriptor_response.file_descriptor_proto


def test_89_health_is_off_by_default(two_versions):
    with rejected("UNIMPLEMENTED"):
        health_pb2_grpc.HealthStub(two_versions.channel).Check(health_pb2.HealthCheckRequest(), timeout=60)


def test_90_health_reports_the_short_names_of_the_services(start, models):
    with start(models, enable_grpc_healthcheck_service=True) as stubs:
        health = health_pb2_grpc.HealthStub(stubs.channel)
        for name in ("PredictionService", "ModelService"):
            response = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=60)
            assert response.status == health_pb2.HealthCheckResponse.SERVING
        with rejected("NOT_FOUND"):
            health.Check(health_pb2.HealthCheckRequest(service="letters"), timeout=60)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate authority, and certificates for a server on 127.0.0.1 and for a client, in PEM files."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    return folder


def ssl_config(certificates, tmp_path, *, client_verify):
    def pem(name):
        return (certificates / name).read_text().replace("\n", "\\n")

    text = f'server_key: "{pem("server.key")}"\nserver_cert: "{pem("server.pem")}"\n'
    if client_verify:
        text += f'custom_ca: "{pem("ca.pem")}"\nclient_verify: true\n'
    path = tmp_path / "ssl.config"
    path.write_text(text)
    return path


def test_91_tls_encrypts_grpc(start, models, certificates, tmp_path):
    config = ssl_config(certificates, tmp_path, client_verify=False)
    with start(models, ssl_config_file=config) as plain:
        trust = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())
        with Stubs(plain.address, credentials=trust) as stubs:
            assert digits_of(stubs.predict(predict_request(images_of(4)))) == [4]
        with rejected("UNAVAILABLE"):
            plain.predict(predict_request(images_of(4)))


def test_92_mutual_tls_rejects_a_client_without_certificate(start, models, certificates, tmp_path):
    config = ssl_config(certificates, tmp_path, client_verify=True)
    authority, key, certificate = (
        (certificates / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem")
    )
    with start(models, ssl_config_file=config) as plain:
        with Stubs(plain.address, credentials=grpc.ssl_channel_credentials(authority, key, certificate)) as stubs:
            assert digits_of(stubs.predict(predict_request(images_of(4)))) == [4]
        with (
            Stubs(plain.address, credentials=grpc.ssl_channel_credentials(authority)) as stubs,
            rejected("UNAVAILABLE"),
        ):
            stubs.predict(predict_request(images_of(4)))


def test_93_rest_stays_plain_with_tls_on_grpc(start, models, certificates, tmp_path):
    config = ssl_config(certificates, tmp_path, client_verify=True)
    with start(models, ssl_config_file=config) as stubs:
        assert stubs.rest.get(f"/v1/models/{contract.MODEL_NAME}")[0] == 200


def test_94_a_unix_socket_serves_grpc_besides_the_port(start, models, tmp_path):
    socket = tmp_path / "grpc.sock"
    with start(models, grpc_socket_path=str(socket)) as stubs:
        assert digits_of(stubs.predict(predict_request(images_of(4)))) == [4]
        with Stubs(f"unix:{socket}") as local:
            assert digits_of(local.predict(predict_request(images_of(4)))) == [4]


def test_95_channel_arguments_reach_grpc(start, models):
    arguments = "grpc.max_connection_age_ms=200,grpc.max_connection_age_grace_ms=200"
    with start(models, grpc_channel_arguments=arguments) as stubs:
        stubs.status()  # connects; a subscriber could miss the short time in which the channel is READY
        states = []
        stubs.channel.subscribe(states.append)
        wait_until(lambda: states and states[-1] == grpc.ChannelConnectivity.IDLE)


def count(stubs, status):
    line = f':tensorflow:serving:request_count{{model_name="{contract.MODEL_NAME}",status="{status}"}} '
    _, page = stubs.rest.get(METRICS)
    return sum(int(found.removeprefix(line)) for found in page.splitlines() if found.startswith(line))


def test_96_metrics_count_requests_by_status(start, models):
    with start(models) as stubs:
        stubs.predict(predict_request(images_of(4)))
        with rejected("FAILED_PRECONDITION"):
            stubs.predict(predict_request(images_of(4), signature="sketches"))
        wait_until(lambda: (count(stubs, "OK"), count(stubs, "FAILED_PRECONDITION")) == (1, 1))
