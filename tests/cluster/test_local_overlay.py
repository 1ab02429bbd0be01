"""The local overlay from nothing to a prediction, and then what operators do: swap, stop, roll back, drain, fail."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

import pytest

from serving.client import ClientConfig, DigitClient
from serving.contract import MODEL_NAME
from tests.cluster.kubectl import NAMESPACE, Cluster, condition
from tests.k8s.manifests import K8S, Object, kustomize
from tests.waiting import wait_until
from trainer.errors import ExitCode

PICTURES = [(K8S / "components" / "smoke" / "digits" / f"{digit}.png").read_bytes() for digit in range(10)]
MINUTES = 60.0


@pytest.fixture(scope="module")
def served(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster after the first training of the local overlay, which is deleted at the end."""
    if not cluster.nodes():
        pytest.skip("the cluster has no nodes to run pods")
    manifests = kustomize(("overlays/local",))
    cluster.apply(manifests)
    try:
        cluster.wait_for_job("train", "Complete", 20 * MINUTES)
        cluster.wait_for_job("smoke", "Complete", 5 * MINUTES)
        yield cluster
    finally:
        cluster("delete", "--filename=-", "--ignore-not-found", stdin=manifests, timeout=600)


def start_run(cluster: Cluster, name: str, *flags: str, data: str = "--dataset=optdigits") -> None:
    """Apply another run on the embedded digits, as k8s/overlays/another-run does."""
    changes = [
        {"op": "replace", "path": "/metadata/name", "value": name},
        {"op": "replace", "path": "/spec/template/spec/initContainers/0/args/3", "value": data},
        {"op": "replace", "path": "/spec/template/spec/containers/0/args/2", "value": "--preset=quickstart"},
        *({"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": flag} for flag in flags),
    ]
    patch = {
        "target": {"kind": "Job", "name": "train"},
        "options": {"allowNameChange": True},
        "patch": json.dumps(changes),
    }
    cluster.apply(kustomize(("base/training",), patches=(patch,), namespace=NAMESPACE))


@contextmanager
def client_of(cluster: Cluster) -> Iterator[DigitClient]:
    with (
        cluster.port_forward("service/serving", 8500) as port,
        DigitClient(f"127.0.0.1:{port}", ClientConfig(max_attempts=1)) as client,
    ):
        yield client


def served_version(client: DigitClient) -> int:
    return client.predict_pictures(PICTURES[:1])[0].version


def steps_in(log: str) -> list[int]:
    """The steps after which a run was evaluated."""
    return [int(step) for step in re.findall(r'"kind": "validation", "step": (\d+)', log)]


def log_of(cluster: Cluster, pod: Object) -> str:
    return cluster("logs", pod["metadata"]["name"], f"--namespace={NAMESPACE}", "--container=train")


def test_the_smoke_job_gets_every_digit_right(served: Cluster) -> None:
    lines = served("logs", "job/smoke", f"--namespace={NAMESPACE}", "--container=predict").splitlines()
    answers = [line.split()[:2] for line in lines if line.startswith("/digits/")]
    assert answers == [[f"/digits/{digit}.png", str(digit)] for digit in range(10)]


def test_grpc_and_rest_answer_through_port_forward(served: Cluster) -> None:
    with client_of(served) as client:
        assert [each.digit for each in client.predict_pictures(PICTURES)] == list(range(10))
    with served.port_forward("service/serving", 8501) as port:
        url = f"http://127.0.0.1:{port}/v1/models/{MODEL_NAME}"
        status = json.load(urlopen(url, timeout=10))["model_version_status"]
        assert [each["state"] for each in status] == ["AVAILABLE"]
        body = {"instances": [[[0] * 28] * 28]}
        request = Request(f"{url}:predict", json.dumps(body).encode(), {"Content-Type": "application/json"})
        [prediction] = json.load(urlopen(request, timeout=30))["predictions"]
        assert sum(prediction["probabilities"]) == pytest.approx(1, abs=1e-3)


def test_a_second_run_publishes_and_the_swap_loses_no_request(served: Cluster) -> None:
    errors: list[Exception] = []
    versions: list[int] = []
    done = threading.Event()

    def send_requests(client: DigitClient) -> None:
        while not done.is_set():
            try:
                versions.append(served_version(client))
            except Exception as error:
                errors.append(error)

    with client_of(served) as client:
        first = served_version(client)
        load = threading.Thread(target=send_requests, args=(client,))
        load.start()
        try:
            start_run(served, "train-second", "--seed=1")
            served.wait_for_job("train-second", "Complete", 20 * MINUTES)
            wait_until(lambda: versions[-1] > first, 60)
        finally:
            done.set()
            load.join()
    assert errors == []
    assert versions == sorted(versions)


def test_a_pod_that_is_deleted_in_mid_run_saves_and_its_successor_resumes(served: Cluster) -> None:
    start_run(served, "train-stopped", "--epochs=60")
    wait_until(lambda: served.pods("train-stopped"), 30)
    [first] = served.pods("train-stopped")
    wait_until(lambda: condition(served.get("pod", first["metadata"]["name"]), "Ready"), 5 * MINUTES)
    wait_until(lambda: steps_in(log_of(served, first)), 5 * MINUTES)
    reached = max(steps_in(log_of(served, first)))
    served("delete", "pod", first["metadata"]["name"], f"--namespace={NAMESPACE}", timeout=180)
    served.wait_for_job("train-stopped", "Complete", 20 * MINUTES)
    second = served.pods("train-stopped")[-1]
    assert second["metadata"]["name"] != first["metadata"]["name"]
    assert min(steps_in(log_of(served, second))) > reached, "the second pod repeated steps of the first"


def test_a_rollback_serves_the_version_before(served: Cluster) -> None:
    start_run(served, "train-second", "--seed=1")  # Unchanged, and complete, after the test of the swap.
    served.wait_for_job("train-second", "Complete", 20 * MINUTES)
    served.apply(kustomize(("overlays/rollback",)))
    served.wait_for_job("rollback", "Complete", 5 * MINUTES)
    log = served("logs", "job/rollback", f"--namespace={NAMESPACE}")
    retired, before = map(int, re.findall(r"\b\d{14}\b", log))
    assert before < retired
    with client_of(served) as client:
        wait_until(lambda: served_version(client) == before, 60)
    served("delete", "job", "rollback", f"--namespace={NAMESPACE}")


@pytest.mark.parametrize(
    ("name", "data", "flags", "container", "code"),
    [
        ("train-no-data", "--dataset=idx", (), "data", ExitCode.DATA),
        ("train-poor", "--dataset=optdigits", ("--min-accuracy=0.9999",), "train", ExitCode.GATE),
    ],
)
def test_a_run_without_data_or_below_the_gate_fails_its_job_with_one_pod(
    served: Cluster, name: str, data: str, flags: tuple[str, ...], container: str, code: ExitCode
) -> None:
    start_run(served, name, *flags, data=data)
    failed = served.wait_for_job(name, "Failed", 10 * MINUTES)
    assert f"Container {container} " in failed["message"]
    assert f"exit code {code.value} " in failed["message"]
    assert len(served.pods(name)) == 1


def test_a_drain_with_two_servers_ends_and_they_serve_again(served: Cluster) -> None:
    served("scale", "deployment/serving", "--replicas=2", f"--namespace={NAMESPACE}")
    served("rollout", "status", "deployment/serving", f"--namespace={NAMESPACE}", "--timeout=180s", timeout=200)
    [node] = {
        pod["spec"]["nodeName"]
        for pod in served.objects("pods", f"--namespace={NAMESPACE}", "--selector=mounts=artifacts")
    }
    try:
        served(
            "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--pod-selector=app.kubernetes.io/name=digits",
            "--timeout=120s", timeout=150,
        )  # fmt: skip
    finally:
        served("uncordon", node)
    served("rollout", "status", "deployment/serving", f"--namespace={NAMESPACE}", "--timeout=600s", timeout=620)
    with client_of(served) as client:
        assert client.wait_until_available(timeout_seconds=60)
