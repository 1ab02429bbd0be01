"""serving/client/wire.proto agrees with TensorFlow's own protos, and serving/client/wire_pb2.py with it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

import serving.client.wire_pb2 as wire_pb2

ROOT = Path(__file__).parents[3]

PAIRS = [
    (wire_pb2.PredictRequest, predict_pb2.PredictRequest),
    (wire_pb2.PredictResponse, predict_pb2.PredictResponse),
    (wire_pb2.GetModelMetadataRequest, get_model_metadata_pb2.GetModelMetadataRequest),
    (wire_pb2.GetModelMetadataResponse, get_model_metadata_pb2.GetModelMetadataResponse),
    (wire_pb2.SignatureDefMap, get_model_metadata_pb2.SignatureDefMap),
    (wire_pb2.GetModelStatusRequest, get_model_status_pb2.GetModelStatusRequest),
    (wire_pb2.GetModelStatusResponse, get_model_status_pb2.GetModelStatusResponse),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda message: message.DESCRIPTOR.full_name)
def test_every_field_has_the_number_and_type_it_has_in_tensorflow(ours, theirs):
    differences = [*_differences(ours.DESCRIPTOR, theirs.DESCRIPTOR, seen=set())]
    assert not differences


def _differences(ours, theirs, seen):
    if ours.full_name in seen:
        return
    seen.add(ours.full_name)
    for field in ours.fields:
        path, other = f"{ours.full_name}.{field.name}", theirs.fields_by_name.get(field.name)
        if other is None:
            yield f"{path} does not exist in {theirs.full_name}"
            continue
        if _on_the_wire(field) != _on_the_wire(other):
            yield f"{path} is {_on_the_wire(field)}, in TensorFlow {_on_the_wire(other)}"
        if field.message_type:
            yield from _differences(field.message_type, other.message_type, seen)
        if field.enum_type:
            for value in field.enum_type.values:
                if other.enum_type.values_by_name[value.name].number != value.number:
                    yield f"{path}: {value.name} has another number"


def _on_the_wire(field):
    # An enum and an int32 have the same bytes: status codes are an enum there and an int32 here.
    same = field.TYPE_INT32 if field.type == field.TYPE_ENUM else field.type
    oneof = field.containing_oneof.name if field.containing_oneof else None
    return field.number, same, field.is_repeated, field.is_packed, oneof


def test_generated_file_is_up_to_date(tmp_path):
    written = tmp_path / "descriptors"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", f"--descriptor_set_out={written}"]
    subprocess.run([*command, "serving/client/wire.proto"], cwd=ROOT, check=True)
    (expected,) = descriptor_pb2.FileDescriptorSet.FromString(written.read_bytes()).file
    found = descriptor_pb2.FileDescriptorProto.FromString(wire_pb2.DESCRIPTOR.serialized_pb)
    assert _without_json_names(found) == _without_json_names(expected), "run `make proto`"


def _without_json_names(file):
    for message in _messages(file.message_type):
        for field in message.field:
            field.ClearField("json_name")  # protoc writes it to descriptor sets, not into generated code
    return file


def _messages(messages):
    for message in messages:
        yield message
        yield from _messages(message.nested_type)


def test_types_for_mypy_name_every_message_and_field():
    types = (ROOT / "serving" / "client" / "wire_pb2.pyi").read_text()
    file = descriptor_pb2.FileDescriptorProto.FromString(wire_pb2.DESCRIPTOR.serialized_pb)
    for message in _messages(file.message_type):
        assert f"class {message.name}(_message.Message)" in types
        for field in message.field:
            assert re.search(rf"^ +{field.name}: ", types, re.MULTILINE), f"{field.name} is missing: run `make proto`"


def test_generated_file_runs_with_the_oldest_protobuf_we_allow():
    generated = (ROOT / "serving" / "client" / "wire_pb2.py").read_text()
    needs = re.search(r"# Protobuf Python Version: (\d+)\.(\d+)", generated).groups()
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (protobuf,) = (line for line in dependencies if line.startswith("protobuf"))
    assert tuple(map(int, needs)) <= tuple(map(int, re.search(r">=(\d+)\.(\d+)", protobuf).groups()))
