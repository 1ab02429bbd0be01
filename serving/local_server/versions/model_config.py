"""TensorFlow Serving's `ModelServerConfig`, from a file or a reload request -> the settings of each model."""

from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.local_server.config import ModelSettings
from serving.local_server.errors import StatusError, invalid_argument
from serving.local_server.versions.discovery import VersionPolicy

PLATFORM = "tensorflow"
"""The only supported `model_platform`."""


def read_model_config(path: Path) -> list[ModelSettings]:
    """Read a `--model_config_file`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no valid ModelServerConfig message.
    """
    try:
        config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
        return parse_model_config(config)
    except (text_format.ParseError, UnicodeDecodeError, StatusError) as error:
        raise ValueError(f"{path}: {error}") from error


def parse_model_config(config: model_server_config_pb2.ModelServerConfig) -> list[ModelSettings]:
    """Return the settings of each model in `config`.

    Raises:
        StatusError: INVALID_ARGUMENT for a config that is no `model_config_list`, a repeated name, an empty or unknown
            platform, a base path that is not absolute, or an invalid version policy.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise invalid_argument("ServerModelConfig type not supported. Only ModelConfigList is currently supported")
    models = [_model(entry) for entry in config.model_config_list.config]
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise invalid_argument(f"Illegal to list model {name} multiple times in config list")
    return models


def _model(entry: model_server_config_pb2.ModelConfig) -> ModelSettings:
    if not entry.model_platform:
        raise invalid_argument(f"Model {entry.name} has no model_platform")
    if entry.model_platform != PLATFORM:
        raise invalid_argument(f"Model {entry.name} requests unsupported platform {entry.model_platform}")
    if not Path(entry.base_path).is_absolute():
        raise invalid_argument(
            f"Expected model {entry.name} to have an absolute path; got base_path()={entry.base_path}"
        )
    return ModelSettings(
        name=entry.name,
        base_path=Path(entry.base_path),
        version_policy=_policy(entry),
        version_labels=dict(entry.version_labels),
    )


def _policy(entry: model_server_config_pb2.ModelConfig) -> VersionPolicy:
    policy = entry.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return VersionPolicy.all()
    if kind == "specific":
        if not policy.specific.versions:
            raise invalid_argument(f"Model {entry.name} has a specific version policy without versions")
        return VersionPolicy.specific(*policy.specific.versions)
    return VersionPolicy.latest(policy.latest.num_versions or 1)
