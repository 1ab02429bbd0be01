"""What stands in the manifests agrees with its other end: exit codes, command lines, paths, ports, sizes, versions."""

import argparse
import re
import shutil
import tomllib
from typing import Any

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorboard import program
from tensorflow_serving.config import model_server_config_pb2

import serving.local_server.metrics as metrics
from serving import cli as serving_cli
from serving.client.config import MAX_CHUNK_IMAGES
from serving.contract import MODEL_NAME, SIGNATURE
from tests.k8s.manifests import K8S, REPOSITORY, STACKS, arguments, environment, named, of_kind, pods, render
from trainer import cli as trainer_cli
from trainer.config import TrainConfig
from trainer.errors import ExitCode
from trainer.publishing.export import WARM_UP_BATCH_SIZES

ROOT = "/artifacts"
CONFIG = K8S / "base" / "serving" / "config"

MODEL_SERVER_FLAGS = {
    "port", "rest_api_port", "model_config_file", "enable_batching", "batching_parameters_file", "monitoring_config_file",
    "enable_grpc_healthcheck_service", "grpc_channel_arguments", "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
}  # fmt: skip
"""Those we use of tensorflow_model_server's, as they stand in its main.cc; it exits at one that it does not know."""


def commands() -> list[Any]:
    """Every different command line in every stack, as (arguments, pod, container); none where nothing can be rendered."""
    if not shutil.which("kubectl"):
        return []
    found: dict[tuple[str, ...], Any] = {}
    for stack in STACKS:
        for pod in pods(render(stack)):
            for container in pod.containers:
                line = arguments(pod, container)
                found[(container["image"], *line)] = pytest.param(
                    line, pod, container, id=f"{stack}-{' '.join(line[:3])}"
                )
    return list(found.values())


def compose() -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]


def parsed(line: list[str]) -> argparse.Namespace:
    """The arguments as the program that they are for understands them; SystemExit if it does not."""
    module, rest = line[0], line[1:]
    if module == "trainer":
        return trainer_cli._parser().parse_args(rest)
    if module == "serving":
        return serving_cli._build_parser(serve=rest[0] == "serve").parse_args(rest)
    assert module == "tensorboard.main", f"{module}: not one of the modules in our images"
    board = program.TensorBoard()
    board.configure(argv=["tensorboard", *rest])
    return board.flags


@pytest.mark.parametrize(("line", "pod", "container"), commands())
def test_the_real_command_line_takes_the_arguments(line: list[str], pod: Any, container: Any) -> None:
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
        config = trainer_cli._config(args)
        assert str(config.artifacts) == ROOT
        assert config.run == pod.owner["metadata"]["name"]
    elif line[0] == "trainer":
        assert str(args.artifacts) == ROOT
    elif line[0] == "tensorboard.main":
        assert args.logdir == f"{ROOT}/{TrainConfig(run='x').run_dir.parent.relative_to('artifacts')}"


@pytest.mark.parametrize("stack", STACKS)
def test_the_data_that_is_prepared_is_the_data_that_is_trained_on(stack: str) -> None:
    for pod in pods(of_kind(render(stack), "Job")):
        lines = {container["name"]: arguments(pod, container) for container in pod.containers}
        if "train" in lines and pod.owner["metadata"]["name"] == "train":
            assert parsed(lines["data"]).dataset == trainer_cli._config(parsed(lines["train"])).dataset


@pytest.mark.parametrize("stack", STACKS)
def test_a_job_fails_at_once_where_a_retry_cannot_help_and_only_there(stack: str) -> None:
    hopeless = [
        code.value for code in (ExitCode.USAGE, ExitCode.DATA, ExitCode.DIVERGED, ExitCode.GATE, ExitCode.ARTIFACT)
    ]
    for job in of_kind(render(stack), "Job"):
        if job["metadata"]["labels"]["app.kubernetes.io/component"] != "training":
            continue
        rules = job["spec"]["podFailurePolicy"]["rules"]
        codes = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule}
        several = job["spec"].get("completionMode") == "Indexed"
        assert codes == {"FailJob": hopeless} | ({"Ignore": [ExitCode.PEERS.value]} if several else {})
        assert rules[0] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def test_the_docstrings_of_the_exit_codes_say_the_same() -> None:
    source = (REPOSITORY / "trainer" / "exit_codes.py").read_text()
    said = [
        ExitCode[name].value
        for name, text in re.findall(r'(\w+) = \d+\n    """(.*?)"""', source, re.S)
        if "cannot help" in text
    ]
    assert said == [2, 3, 4, 5, 6]


def test_the_server_finds_the_models_where_the_trainer_publishes_them() -> None:
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((CONFIG / "models.config").read_text(), config)
    [model] = config.model_config_list.config
    published = TrainConfig(run="x").models_dir.relative_to("artifacts") / MODEL_NAME
    assert (model.name, model.base_path, model.model_platform) == (MODEL_NAME, f"{ROOT}/{published}", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 1


def test_every_path_in_a_command_is_on_a_volume() -> None:
    for stack in STACKS:
        for pod in pods(render(stack)):
            for container in pod.containers:
                mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
                for path in re.findall(r"(?:^|=)(/[a-z]\S*)", "\n".join(arguments(pod, container)), re.M):
                    assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), (pod.name, path)


def test_files_from_configmaps_are_there_under_their_names() -> None:
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


def text_message(file: str, package: str, name: str, **fields: str) -> Any:
    """The config file as a message of these fields: TensorFlow Serving's API package leaves these two protos out."""
    proto = descriptor_pb2.FileDescriptorProto(name=f"{file}.proto", package=package, syntax="proto3")
    proto.dependency.append("google/protobuf/wrappers.proto")
    from google.protobuf import wrappers_pb2  # noqa: F401 - registers them

    message = proto.message_type.add(name=name)
    kinds = descriptor_pb2.FieldDescriptorProto
    for number, (field, kind) in enumerate(fields.items(), 1):
        added = message.field.add(name=field, number=number, label=kinds.LABEL_OPTIONAL)
        if kind.startswith("."):
            added.type, added.type_name = kinds.TYPE_MESSAGE, kind
        else:
            added.type = getattr(kinds, f"TYPE_{kind.removeprefix('repeated ').upper()}")
            added.label = kinds.LABEL_REPEATED if kind.startswith("repeated") else kinds.LABEL_OPTIONAL
    pool = descriptor_pool.Default()
    pool.Add(proto)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))()
    return text_format.Parse((CONFIG / file).read_text(), made)


def test_the_batches_are_those_of_the_warm_up_and_take_every_request_of_our_client() -> None:
    integer, boolean = ".google.protobuf.Int64Value", ".google.protobuf.BoolValue"
    batching = text_message(
        "batching.config", "tests.batching", "BatchingParameters",
        max_batch_size=integer, batch_timeout_micros=integer, max_enqueued_batches=integer, num_batch_threads=integer,
        allowed_batch_sizes="repeated int64", enable_large_batch_splitting=boolean, max_execution_batch_size=integer,
    )  # fmt: skip
    assert tuple(batching.allowed_batch_sizes) == WARM_UP_BATCH_SIZES[SIGNATURE]
    assert batching.max_execution_batch_size.value == WARM_UP_BATCH_SIZES[SIGNATURE][-1]
    assert batching.enable_large_batch_splitting.value
    assert batching.max_batch_size.value >= MAX_CHUNK_IMAGES
    [pod] = pods([named(render("base"), "Deployment", "serving")])
    [container] = pod.containers
    assert str(batching.num_batch_threads.value) == container["resources"]["limits"]["cpu"]
    assert environment(pod, container)["CPUS"] == container["resources"]["limits"]["cpu"]


def test_prometheus_asks_where_the_server_answers() -> None:
    text = (CONFIG / "monitoring.config").read_text()
    assert re.search(r'prometheus_config \{\s*enable: true\s*path: "(\S+)"\s*\}', text)[1] == metrics.PATH  # type: ignore[index]
    monitor = named(render("base+prometheus"), "ServiceMonitor", "serving")
    assert [endpoint["path"] for endpoint in monitor["spec"]["endpoints"]] == [metrics.PATH]


@pytest.mark.parametrize("stack", STACKS)
def test_the_probes_ask_for_the_model_itself(stack: str) -> None:
    """`/v1/models/NAME` is 200 whatever the state; its metadata is 404 until a version is there."""
    [container] = pods([named(render(stack), "Deployment", "serving")])[0].containers
    for kind in ("startupProbe", "readinessProbe"):
        assert container[kind]["httpGet"] == {"path": f"/v1/models/{MODEL_NAME}/metadata", "port": "rest"}
    grace = pods([named(render(stack), "Deployment", "serving")])[0].spec["terminationGracePeriodSeconds"]
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] < grace


def test_our_images_carry_our_version_wherever_they_are_named() -> None:
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


def test_the_image_and_the_pods_are_of_one_user() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    [user] = set(re.findall(r"^USER (\S+)$", dockerfile, re.M))
    contexts = [pod.spec["securityContext"] for stack in STACKS for pod in pods(render(stack))]
    assert {f"{context['runAsUser']}:{context['runAsGroup']}" for context in contexts} == {user}
    assert {service["user"] for service in compose().values()} == {user}


@pytest.mark.parametrize("name", compose())
def test_compose_runs_the_same_commands_as_hardened(name: str) -> None:
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
