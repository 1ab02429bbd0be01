"""Clients against the local server: curl, production's batching file, our client over mutual TLS.

Programs of other projects: tests/serving/test_other_clients.py.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from serving import contract
from serving.cli import main
from serving.local_server.server import LocalServer
from serving.local_server.text_files import read_batching_parameters
from tests.serving.saved_models import images_of, write_version
from tests.serving.stubs import Stubs, digits_of, predict_request, rejected

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base_path = tmp_path_factory.mktemp("clients") / contract.MODEL_NAME
    write_version(base_path, 1)
    batching = read_batching_parameters(ROOT / "k8s" / "base" / "serving" / "config" / "batching.config")
    with LocalServer(base_path, rest_port=0, batching=batching) as server:
        yield server


def test_the_batching_file_of_production_serves_every_request_of_our_client(server):
    with Stubs(server.target) as stubs:
        images = np.repeat(images_of(3), 300, axis=0)
        assert digits_of(stubs.predict(predict_request(images))) == [3] * 300


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_readmes_curl_command_predicts_a_picture(server, tmp_path):
    readme = (ROOT / "README.md").read_text()
    command = re.search(r'echo "\{\\"signature_name.*?:predict', readme, re.DOTALL)
    if command is None:
        pytest.skip("README has no curl command")
    (tmp_path / "photo.jpg").write_bytes(tf.io.encode_jpeg(images_of(7)[0][..., None]).numpy())
    line = command[0].replace("localhost:8501", server.rest_target).replace("curl ", "curl -sS ")
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert [row[contract.DIGIT] for row in json.loads(done.stdout)["predictions"]] == [7]


@pytest.mark.parametrize(
    ("signature", "code"), [("predict_images", "FAILED_PRECONDITION"), (contract.SIGNATURE, "INVALID_ARGUMENT")]
)
def test_the_request_of_the_public_mnist_example_is_rejected(server, signature, code):
    """Its pixels are scaled floats; a model that scales inside would answer them wrongly, so no signature takes them."""
    request = predict_request(np.zeros((1, 784), np.float32))
    request.model_spec.signature_name = signature
    with Stubs(server.target) as stubs, rejected(code):
        stubs.predict(request)


def test_our_command_line_predicts_over_mutual_tls(tmp_path, capsys):
    write_version(tmp_path / contract.MODEL_NAME, 1)
    for name in ("authority", "server", "client"):
        make_certificate(tmp_path, name)

    def pem(name):
        return (tmp_path / name).read_text().replace("\n", "\\n")

    config = tmp_path / "ssl.config"
    config.write_text(
        f'server_key: "{pem("server.key")}" server_cert: "{pem("server.pem")}" '
        f'custom_ca: "{pem("authority.pem")}" client_verify: true'
    )
    np.save(tmp_path / "images.npy", images_of(4))
    predict = ["predict", str(tmp_path / "images.npy"), "--ca-file", str(tmp_path / "authority.pem"), "--timeout", "20"]
    own = ["--certificate-file", str(tmp_path / "client.pem"), "--key-file", str(tmp_path / "client.key")]
    with LocalServer(tmp_path / contract.MODEL_NAME, ssl_config_file=config) as server:
        assert main([*predict, *own, "--target", server.target]) == 0
        assert capsys.readouterr().out.splitlines()[-1].split()[1] == "4"
        assert main([*predict, "--timeout", "2", "--target", server.target]) == 1


def make_certificate(folder, name):
    """Write NAME.key and NAME.pem; the first, `authority`, signs the others, which are valid for 127.0.0.1."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"]
    if name == "authority":
        openssl(*new, "-x509", "-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        return
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1")
    openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr")
    signing = ["-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial", "-days", "2"]
    openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing, "-extfile", "extensions")
