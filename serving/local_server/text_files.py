"""TensorFlow Serving's configuration files in protobuf's text format.

`tensorflow-serving-api` does not contain these two messages, so their fields are declared here.
"""

from pathlib import Path
from typing import Any

import grpc
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,  # noqa: F401 - registers the messages that BatchingParameters uses
)

from serving.local_server.config import BatchingParameters

INT64, BOOL, STRING = ".google.protobuf.Int64Value", ".google.protobuf.BoolValue", ".google.protobuf.StringValue"


def read_batching_parameters(path: Path) -> BatchingParameters:
    """Read a `--batching_parameters_file`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no BatchingParameters message, or a value is out of range or not supported.
    """
    message = _read(path, _BATCHING_PARAMETERS)
    if message.pad_variable_length_inputs:
        raise ValueError(f"{path}: pad_variable_length_inputs is not supported by the local server")
    values = {
        field.name: getattr(message, field.name).value
        for field, _ in message.ListFields()
        if field.name in BatchingParameters.__dataclass_fields__ and field.name != "allowed_batch_sizes"
    }
    return BatchingParameters(**values, allowed_batch_sizes=tuple(message.allowed_batch_sizes))


def read_server_credentials(path: Path) -> grpc.ServerCredentials:
    """Read an `--ssl_config_file`: the server's certificate and, for mutual TLS, who signs the clients' certificates.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no SSLConfig message, or it lacks a key or a certificate.
    """
    message = _read(path, _SSL_CONFIG)
    if not message.server_key or not message.server_cert:
        raise ValueError(f"{path}: server_key and server_cert must hold PEM text")
    if message.client_verify and not message.custom_ca:
        raise ValueError(f"{path}: client_verify needs custom_ca, the PEM text of the clients' certificate authority")
    return grpc.ssl_server_credentials(
        [(message.server_key.encode(), message.server_cert.encode())],
        root_certificates=message.custom_ca.encode() or None,
        require_client_auth=message.client_verify,
    )


def _read(path: Path, message_class: Any) -> Any:
    try:
        return text_format.Parse(path.read_text(), message_class())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _declare(name: str, **fields: tuple[int, str]) -> Any:
    """Return a message class. Each field has a number and a type: a message's name or a scalar's, maybe "repeated"."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"serving/local_server/{name}.proto", package="serving.local_server", syntax="proto3"
    )
    file.dependency.append("google/protobuf/wrappers.proto")
    message = file.message_type.add(name=name)
    kinds = descriptor_pb2.FieldDescriptorProto
    for field_name, (number, kind) in fields.items():
        field = message.field.add(name=field_name, number=number, label=kinds.LABEL_OPTIONAL)
        if kind.startswith("."):
            field.type, field.type_name = kinds.TYPE_MESSAGE, kind
        else:
            field.type = getattr(kinds, f"TYPE_{kind.removeprefix('repeated ').upper()}")
            field.label = kinds.LABEL_REPEATED if kind.startswith("repeated ") else kinds.LABEL_OPTIONAL
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"serving.local_server.{name}"))


_BATCHING_PARAMETERS = _declare(
    "BatchingParameters",
    max_batch_size=(1, INT64),
    batch_timeout_micros=(2, INT64),
    max_enqueued_batches=(3, INT64),
    num_batch_threads=(4, INT64),
    thread_pool_name=(5, STRING),
    allowed_batch_sizes=(6, "repeated int64"),
    pad_variable_length_inputs=(7, "bool"),
    enable_large_batch_splitting=(8, BOOL),
    max_execution_batch_size=(9, INT64),
)
"""tensorflow_serving/servables/tensorflow/session_bundle_config.proto. Text files use the names, not the numbers."""

_SSL_CONFIG = _declare(
    "SSLConfig",
    server_key=(1, "string"),
    server_cert=(2, "string"),
    custom_ca=(3, "string"),
    client_verify=(4, "bool"),
)
"""tensorflow_serving/config/ssl_config.proto."""
