"""What the command line says of a server that it cannot use, with real servers that are the wrong one."""

import http.server
import socket
import subprocess
import threading
from pathlib import Path

import grpc
import pytest

from serving.cli import main
from tests.ports import free_port
from tests.serving.scripted_server import fail, scripted_server


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A self-signed certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    command = ("openssl", "req", "-x509", *new_key, "-keyout", folder / "key.pem", "-out", folder / "cert.pem", *names)
    subprocess.run(command, check=True, capture_output=True)
    return folder


def encrypted_server(folder: Path, *, require_certificate: bool = False):
    certificate = (folder / "cert.pem").read_bytes()
    pair = ((folder / "key.pem").read_bytes(), certificate)
    credentials = grpc.ssl_server_credentials([pair], certificate if require_certificate else None, require_certificate)
    return scripted_server(credentials=credentials)


def error_of(capsys, target: str, *options: object, timeout: str = "3") -> str:
    assert main(["status", "--timeout", timeout, "--target", target, *map(str, options)]) == 1
    return capsys.readouterr().err


def on_localhost(target: str) -> str:
    return f"localhost:{target.rpartition(':')[2]}"


def test_nothing_listening_is_named_with_the_command_that_starts_a_server(capsys):
    target = f"localhost:{free_port()}"
    assert error_of(capsys, target) == (
        f"error: {target} refuses connections: nothing listens there; "
        "start a server with `make serve` or `digits serve MODELS_DIR`\n"
    )


def test_of_several_replicas_the_one_that_fails_is_named(capsys):
    busy = scripted_server(status=fail(grpc.StatusCode.UNAVAILABLE, "full"))
    with busy as target:
        port = free_port()
        assert f"127.0.0.1:{port} refuses connections" in error_of(capsys, f"ipv4:{target},127.0.0.1:{port}")


def test_a_busy_server_keeps_its_own_message(capsys):
    with scripted_server(status=fail(grpc.StatusCode.UNAVAILABLE, "the queue is full")) as target:
        assert error_of(capsys, target) == f"error: {target} is unavailable: the queue is full\n"


def test_a_host_that_cannot_be_resolved_is_named(capsys):
    assert "error: no-such-host.invalid:8500 cannot be resolved" in error_of(capsys, "no-such-host.invalid:8500")


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_a_host_name_that_no_resolver_accepts_is_named(host, capsys):
    assert f"error: {host}:8500 cannot be resolved: a part of a host name" in error_of(capsys, f"{host}:8500")


def test_an_encrypted_key_is_named_and_no_password_is_asked_for(capsys, folder):
    encrypted = folder / "encrypted.pem"
    command = ("openssl", "ec", "-in", folder / "key.pem", "-out", encrypted, "-aes256", "-passout", "pass:secret")
    subprocess.run(command, check=True, capture_output=True)
    certificates = (
        "--ca-file",
        folder / "cert.pem",
        "--certificate-file",
        folder / "cert.pem",
        "--key-file",
        encrypted,
    )
    with encrypted_server(folder, require_certificate=True) as target:
        assert f"{encrypted} is encrypted" in error_of(capsys, on_localhost(target), *certificates)


def test_a_proxy_that_stands_between_is_named(capsys, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    with scripted_server() as target:
        message = error_of(capsys, on_localhost(target))
    assert "gRPC connects through the proxy that http_proxy names: add the server's host to no_proxy" in message


def test_a_server_that_expects_tls_is_recognised(capsys, folder):
    with encrypted_server(folder) as target:
        found = on_localhost(target)
        assert error_of(capsys, found) == f"error: {found} expects an encrypted connection; add --tls\n"


def test_a_server_without_tls_is_recognised(capsys, folder):
    with scripted_server() as target:
        found = on_localhost(target)
        message = f"error: {found} does not encrypt connections; leave out --tls and its options\n"
        assert error_of(capsys, found, "--ca-file", folder / "cert.pem") == message


def test_a_certificate_that_is_not_accepted_is_explained(capsys, folder):
    with encrypted_server(folder) as target:
        found = on_localhost(target)
        assert f"{found} has a certificate that is not accepted: self-signed" in error_of(capsys, found, "--tls")
        options = ("--ca-file", folder / "cert.pem", "--server-name", "another.test")
        assert "Hostname mismatch" in error_of(capsys, found, *options)


def test_a_missing_client_certificate_is_explained(capsys, folder):
    with encrypted_server(folder, require_certificate=True) as target:
        message = error_of(capsys, on_localhost(target), "--ca-file", folder / "cert.pem")
        assert "it may require another client certificate (--certificate-file, --key-file)" in message


def test_an_http_port_is_recognised(capsys):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert "is an HTTP server, such as TensorFlow Serving's REST API" in error_of(
            capsys, f"127.0.0.1:{server.server_port}"
        )
        server.shutdown()


def test_a_server_that_never_responds_is_recognised(capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "does not respond" in error_of(capsys, f"127.0.0.1:{silent.getsockname()[1]}", timeout="1")


def test_wait_reports_the_reason_too(capsys):
    target = f"localhost:{free_port()}"
    assert main(["wait", "--timeout", "2", "--target", target]) == 1
    assert f"was not AVAILABLE within 2 s; last seen: {target}" in (message := capsys.readouterr().err)
    assert f"; {target} refuses connections: nothing listens there" in message


def test_terminal_escapes_in_a_servers_message_are_made_visible(capsys):
    with scripted_server(status=fail(grpc.StatusCode.INTERNAL, "\x1b]0;owned\x07\nline \x9b31m\u202e")) as target:
        assert (
            error_of(capsys, target) == f"error: {target} returned INTERNAL: \\x1b]0;owned\\x07 line \\x9b31m\\u202e\n"
        )
