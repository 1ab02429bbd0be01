"""The manifests agree with the code that they run: exit codes, command lines, paths, ports, sizes, versions."""

import argparse
import re
import shutil
import tomllib
from typing import Any

import pytest
import yaml
from google.protobuf import text_format
from tensorboard import program
from tensorflow_serving.config import model_server_config_pb2

import serving.local_server.metrics as metrics
from serving import cli as serving_cli
from serving.client.config import MAX_CHUNK_IMAGES
from serving.contract import MODEL_NAME, SIGNATURE
from serving.local_server.text_files import read_batching_parameters
from tests.k8s.manifests import K8S, REPOSITORY, STACKS, arguments, environment, named, of_kind, pods, render
from tests.k8s.test_operations import NO_RETRY
from trainer import cli as trainer_cli
from trainer.commands import config_of
from trainer.config import TrainConfig
from trainer.publishing.verify_export import WARM_UP_BATCH_SIZES

ROOT = "/artifacts"
CONFIG = K8S / "base" / "serving" / "config"

MODEL_SERVER_FLAGS = {
    "port", "rest_api_port", "model_config_file", "enable_batching", "batching_parameters_file", "monitoring_config_file",
    "enable_grpc_healthcheck_service", "grpc_channel_arguments", "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
}  # fmt: skip
"""The flags that we use, as in the main.cc of tensorflow_model_server, which exits at an unknown flag."""


def commands() -> list[Any]:
    """Every different command line in every stack, as (arguments, pod, container); none without kubectl."""
    if not shutil.which("kubectl"):
        return []
    found: dict[tuple[str, ...], Any] = {}
    for stack in STACKS:
        for pod in pods(render(stack)):
            for container in pod.containers:
                if not (line := arguments(pod, container)):
                    continue  # A shell script; test_operations.py runs it.
                found[(container["image"], *line)] = pytest.param(
                    line, pod, container, id=f"{stack}-{' '.join(line[:3])}"
                )
    return list(found.values())


def lines(pod: Any) -> dict[str, list[str]]:
    """The arguments of each container, by its name."""
    return {container["name"]: arguments(pod, container) for container in pod.containers}


def compose() -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]


def parsed(line: list[str]) -> argparse.Namespace:
    """The arguments as parsed by the program that gets them; SystemExit if it rejects them."""
    module, rest = line[0], line[1:]
    if module == "trainer":
        return trainer_cli.build_parser(rest).parse_args(rest)
    if module == "serving":
        return serving_cli.build_parser(serve=rest[0] == "serve").parse_args(rest)
    assert module == "tensorboard.main", f"{module}: not one of the modules in our images"
    board = program.TensorBoard()
    board.configure(argv=["tensorboard", *rest])
    return board.flags


@pytest.mark.parametrize(("line", "pod", "container"), commands())
def test_the_command_line_accepts_the_arguments(line: list[str], pod: Any, container: Any) -> None:
    if container["image"].startswith("docker.io/tensorflow/serving"):
        assert container["command"] == ["/usr/bin/tensorflow_model_server"]
        assert {argument.removeprefix("--").partition("=")[0] for argument in line} <= MODEL_SERVER_FLAGS
        return
    args = parsed(line)
    opened = [port["containerPort"] for port in container.get("ports", [])]
    if hasattr(args, "port"):
        assert [args.port] == opened
        assert args.host == "0.0.0.0"  # another pod's connection would not reach localhost
    if line[:2] == ["trainer", "train"]:
        config = config_of(args)
        assert str(config.artifacts) == ROOT
        assert config.run == pod.owner["metadata"]["name"]
    elif line[0] == "trainer":
        assert str(args.artifacts) == ROOT
    elif line[0] == "tensorboard.main":
        assert args.logdir == f"{ROOT}/{TrainConfig(run='x').run_dir.parent.relative_to('artifacts')}"


def test_the_init_container_prepares_the_data_of_the_run() -> None:
    training = [pod for stack in STACKS for pod in pods(of_kind(render(stack), "Job")) if "data" in lines(pod)]
    jobs = {tuple(lines(pod)["train"]): lines(pod) for pod in training if pod.owner["metadata"]["name"] == "train"}
    assert len(jobs) > 2
    for job in jobs.values():
        assert parsed(job["data"]).dataset == config_of(parsed(job["train"])).dataset


def test_the_manifests_and_the_docstrings_of_the_exit_codes_agree_on_when_a_retry_cannot_help() -> None:
    source = (REPOSITORY / "trainer" / "errors.py").read_text()
    codes = re.findall(r'(\w+) = (\d+)\n    """(.*?)"""', source, re.S)
    assert [int(code) for _, code, text in codes if "cannot help" in text] == NO_RETRY


def test_the_server_finds_the_models_where_the_trainer_publishes_them() -> None:
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((CONFIG / "models.config").read_text(), config)
    [model] = config.model_config_list.config
    published = TrainConfig(run="x").model_dir.relative_to("artifacts")
    assert (model.name, model.base_path, model.model_platform) == (MODEL_NAME, f"{ROOT}/{published}", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 1


def test_every_path_in_a_command_is_on_a_volume() -> None:
    for stack in STACKS:
        for pod in pods(render(stack)):
            for container in pod.containers:
                mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
                for path in re.findall(r"(?:^|=)(/[a-z]\S*)", "\n".join(arguments(pod, container)), re.M):
                    assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), (pod.name, path)


def test_every_file_that_an_argument_names_is_in_the_configmap() -> None:
    objects = render("local")
    for owner, place in (
        (named(objects, "Deployment", "serving"), "/config/"),
        (named(objects, "Job", "smoke"), "/digits/"),
    ):
        [pod] = pods([owner])
        maps = [v["configMap"]["name"] for v in pod.spec["volumes"] if "configMap" in v]
        [config] = [found for found in of_kind(objects, "ConfigMap") if found["metadata"]["name"] in maps]
        asked = {a.rpartition("/")[2] for c in pod.spec["containers"] for a in arguments(pod, c) if place in a}
        assert asked == {**config.get("data", {}), **config.get("binaryData", {})}.keys()


def test_batches_have_the_sizes_of_the_warm_up_and_accept_every_request_of_our_client() -> None:
    batching = read_batching_parameters(CONFIG / "batching.config")
    assert batching.allowed_batch_sizes == WARM_UP_BATCH_SIZES[SIGNATURE]
    assert batching.max_execution_batch_size == WARM_UP_BATCH_SIZES[SIGNATURE][-1]
    assert batching.enable_large_batch_splitting
    assert batching.max_batch_size >= MAX_CHUNK_IMAGES
    [pod] = pods([named(render("base"), "Deployment", "serving")])
    [container] = pod.containers
    assert str(batching.num_batch_threads) == container["resources"]["limits"]["cpu"]
    assert environment(pod, container)["CPUS"] == container["resources"]["limits"]["cpu"]


def test_prometheus_scrapes_the_path_of_the_metrics() -> None:
    text = (CONFIG / "monitoring.config").read_text()
    assert re.search(r'prometheus_config \{\s*enable: true\s*path: "(\S+)"\s*\}', text)[1] == metrics.PATH  # type: ignore[index]
    monitor = named(render("base+prometheus"), "ServiceMonitor", "serving")
    assert [endpoint["path"] for endpoint in monitor["spec"]["endpoints"]] == [metrics.PATH]


@pytest.mark.parametrize("stack", STACKS)
def test_the_probes_query_the_metadata_of_the_model(stack: str) -> None:
    """`/v1/models/NAME` answers 200 in every state; its metadata answers 404 until a version is loaded."""
    [container] = pods([named(render(stack), "Deployment", "serving")])[0].containers
    for kind in ("startupProbe", "readinessProbe"):
        assert container[kind]["httpGet"] == {"path": f"/v1/models/{MODEL_NAME}/metadata", "port": "rest"}
    grace = pods([named(render(stack), "Deployment", "serving")])[0].spec["terminationGracePeriodSeconds"]
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] < grace


def test_every_image_of_ours_has_the_version_of_the_project() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    images = {container["image"] for stack in STACKS for pod in pods(render(stack)) for container in pod.containers}
    images |= {service["image"].replace("tensorflow/", "docker.io/tensorflow/") for service in compose().values()}
    ours = {image for image in images if image.startswith("digits-")}
    assert ours == {f"digits-{name}:{version}" for name in ("trainer", "trainer-gpu", "client")}
    assert len(images - ours) == 1, f"one TensorFlow Serving, not {images - ours}"
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    assert set(re.findall(r"^ARG VERSION=(\S+)$", dockerfile, re.M)) == {version}
    assert set(re.findall(r"^FROM base AS (\S+)$", dockerfile, re.M)) == {
        image.split(":")[0].removeprefix("digits-") for image in ours
    }


def test_the_images_and_the_pods_run_as_one_user() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    [user] = set(re.findall(r"^USER (\S+)$", dockerfile, re.M))
    contexts = [pod.spec["securityContext"] for stack in STACKS for pod in pods(render(stack))]
    assert {f"{context['runAsUser']}:{context['runAsGroup']}" for context in contexts} == {user}
    assert {service["user"] for service in compose().values()} == {user}


@pytest.mark.parametrize("name", compose())
def test_compose_runs_valid_commands_in_restricted_containers(name: str) -> None:
    service = compose()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert any(place.startswith("/tmp") for place in service["tmpfs"])
    if service["image"].startswith("tensorflow/serving"):
        assert {flag.removeprefix("--").partition("=")[0] for flag in service["command"]} <= MODEL_SERVER_FLAGS
    else:
        parsed(service["command"])
    for published in service.get("ports", []):
        assert published.startswith("127.0.0.1:")
