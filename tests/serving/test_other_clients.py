"""Programs of others against both servers: `make test-clients` fetches them from PyPI, each into its own environment.

They are not installed beside TensorFlow: min-tfs-client needs a protobuf of 2022, and brings its own `tensorflow` package.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UV = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
pytestmark = pytest.mark.skipif(
    not (UV and os.environ.get("OTHER_CLIENTS")), reason="only `make test-clients` fetches programs from PyPI"
)

OVMSCLIENT = """
import sys, numpy, ovmsclient
images = numpy.full((1, 28, 28), int(sys.argv[2]), numpy.uint8)
client = ovmsclient.make_grpc_client(sys.argv[1])
print(client.predict(inputs={"images": images}, model_name="digits", model_version=1)["digit"].tolist())
"""
MIN_TFS_CLIENT = """
import sys, numpy
from min_tfs_client.requests import TensorServingClient
from min_tfs_client.tensors import tensor_proto_to_ndarray
host, port = sys.argv[1].rsplit(":", 1)
images = numpy.full((1, 28, 28), int(sys.argv[2]), numpy.uint8)
response = TensorServingClient(host, int(port)).predict_request("digits", {"images": images}, model_version=1)
print(tensor_proto_to_ndarray(response.outputs["digit"]).tolist())
"""
GRPC_REQUESTS = """
import base64, sys
from grpc_requests import Client
request = {"model_spec": {"name": "digits", "version": "1"}, "inputs": {"images": {
    "dtype": "DT_UINT8",
    "tensor_shape": {"dim": [{"size": "1"}, {"size": "28"}, {"size": "28"}]},
    "tensor_content": base64.b64encode(bytes([int(sys.argv[2])]) * 784).decode(),
}}}
response = Client(sys.argv[1]).request("tensorflow.serving.PredictionService", "Predict", request)
print([int(digit) for digit in response["outputs"]["digit"]["int64_val"]])
"""
PERF_ANALYZER = """
import nvidia.cuda_runtime, os, subprocess, sys
libraries = nvidia.cuda_runtime.__path__[0] + "/lib"  # the program is linked with it
path = os.pathsep.join([libraries, os.environ.get("LD_LIBRARY_PATH", "")])
flags = "-m digits --service-kind tfserving -i grpc --model-signature-name serving_default --shape images:28,28 -b 3"
measure = "--concurrency-range 2 --measurement-interval 500 --max-trials 3 --stability-percentage 999"
command = ["perf_analyzer", "-u", sys.argv[1], *flags.split(), *measure.split()]
sys.exit(subprocess.run(command, env=os.environ | {"LD_LIBRARY_PATH": path}).returncode)
"""


@pytest.mark.parametrize(
    ("requirements", "program"),
    [
        (["ovmsclient==2023.1"], OVMSCLIENT),
        (["min-tfs-client==1.0.2", "protobuf<3.21", "numpy<2"], MIN_TFS_CLIENT),
        (["grpc_requests==0.1.21"], GRPC_REQUESTS),
    ],
    ids=["ovmsclient", "min-tfs-client", "grpc_requests, through reflection"],
)
def test_a_client_of_others_predicts_with_version_1(two_versions, requirements, program):
    for digit in (3, 7):
        ink = str(int(digit * 25.6 + 12.8))
        done = run(requirements, program, two_versions.address, ink)
        assert (done.stdout.strip(), done.returncode) == (f"[{digit}]", 0), done.stderr


def test_perf_analyzer_measures_without_an_error(two_versions):
    done = run(["tritonclient==2.48.0", "nvidia-cuda-runtime-cu12"], PERF_ANALYZER, two_versions.address)
    if "error while loading shared libraries" in done.stderr:
        pytest.skip(f"perf_analyzer needs a library of the system (apt install libb64-0d): {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Throughput: " in done.stdout


def run(requirements: list[str], program: str, *arguments: str) -> subprocess.CompletedProcess:
    assert UV
    options = [option for requirement in requirements for option in ("--with", requirement)]
    command = [UV, "run", "-q", "--no-project", "--isolated", "--python", "3.11", *options, "python", "-c", program]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300)
