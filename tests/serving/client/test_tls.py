"""Encryption: the client checks the server's certificate, and presents its own if the server requires one."""

import subprocess
from pathlib import Path

import grpc
import numpy as np
import pytest

from serving.client import ClientConfig, Tls
from serving.client.errors import UnavailableError
from tests.serving.scripted_server import scripted_server

IMAGE = np.full((28, 28), 5, np.uint8)


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A certificate authority, a server's certificate for `model.test`, a client's, and an unrelated authority."""
    folder = tmp_path_factory.mktemp("certificates")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for authority in ("ca", "stranger"):
        files = ("-keyout", folder / f"{authority}.key", "-out", folder / f"{authority}.pem")
        _openssl("req", "-x509", *new_key, *files, "-days", 1, "-subj", f"/CN={authority}")
    for name, subject in (("server", "model.test"), ("client", "someone.test")):
        request, names = folder / f"{name}.csr", folder / f"{name}.names"
        names.write_text(f"subjectAltName=DNS:{subject},IP:127.0.0.1")
        _openssl("req", *new_key, "-keyout", folder / f"{name}.key", "-out", request, "-subj", f"/CN={subject}")
        signer = ("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", 1)
        _openssl("x509", "-req", "-in", request, *signer, "-extfile", names, "-out", folder / f"{name}.pem")
    return folder


def _server(folder: Path, *, require_certificate: bool = False):
    key, certificate = (folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes()
    authority = (folder / "ca.pem").read_bytes() if require_certificate else None
    credentials = grpc.ssl_server_credentials([(key, certificate)], authority, require_certificate)
    return scripted_server(credentials=credentials)


def _config(folder: Path, **tls: object) -> ClientConfig:
    return ClientConfig(max_attempts=1, tls=Tls(**{"ca_file": folder / "ca.pem", "server_name": "model.test", **tls}))


def test_a_server_with_the_right_certificate_is_used(folder, call):
    with _server(folder) as target:
        assert call(target, "predict", IMAGE, config=_config(folder)).digit.tolist() == [5]


@pytest.mark.parametrize(
    "tls",
    [{"ca_file": "stranger.pem"}, {"server_name": "another.test"}, {"ca_file": None}],
    ids=["signed by an unrelated authority", "for another name", "not signed by a public authority"],
)
def test_a_server_with_another_certificate_is_not_used(folder, call, tls):
    tls = {name: folder / value if name == "ca_file" and value else value for name, value in tls.items()}
    with _server(folder) as target, pytest.raises(UnavailableError, match=r"(?i)certificate|handshake|hostname"):
        call(target, "predict", IMAGE, config=_config(folder, **tls))


def test_a_server_that_requires_a_certificate_gets_the_clients(folder, call):
    mutual = {"certificate_file": folder / "client.pem", "key_file": folder / "client.key"}
    with _server(folder, require_certificate=True) as target:
        assert call(target, "predict", IMAGE, config=_config(folder, **mutual)).digit.tolist() == [5]
        with pytest.raises(UnavailableError):
            call(target, "predict", IMAGE, config=_config(folder))


def test_a_certificate_without_its_key_is_rejected(folder):
    with pytest.raises(ValueError, match="go together"):
        Tls(certificate_file=folder / "client.pem")


def test_a_missing_certificate_file_is_named(folder, call):
    with pytest.raises(FileNotFoundError, match=r"missing\.pem"):
        call("127.0.0.1:1", "status", config=_config(folder, ca_file=folder / "missing.pem"))


def test_a_file_that_is_no_certificate_is_named(folder, call):
    with pytest.raises(ValueError, match=r"ca\.key is not a PEM file with a CERTIFICATE"):
        call("127.0.0.1:1", "status", config=_config(folder, ca_file=folder / "ca.key"))


def test_credentials_of_the_caller_are_used(folder, call):
    credentials = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes())
    with _server(folder) as target:
        assert call(target, "predict", IMAGE, channel_credentials=credentials).digit.tolist() == [5]
