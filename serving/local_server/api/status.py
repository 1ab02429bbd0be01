"""GetModelMetadata and GetModelStatus: the signatures of a version, and the state of every version."""

from collections.abc import Iterable

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from serving.local_server.errors import invalid_argument, not_found
from serving.local_server.model.servable import Servable
from serving.local_server.versions.lifecycle import Version

SIGNATURE_DEF = "signature_def"
"""The only metadata field that TF Serving supports."""


def check_metadata_fields(fields: Iterable[str]) -> None:
    """Raise StatusError (INVALID_ARGUMENT) unless `signature_def` is the only requested field."""
    fields = list(fields)
    if not fields:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for name in fields:
        if name != SIGNATURE_DEF:
            raise invalid_argument(f"Metadata field {name} is not supported")


def describe(name: str, version: int, servable: Servable) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Build the metadata response: the signatures of the SavedModel, packed in an Any."""
    response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=model_pb2.ModelSpec(name=name))
    response.model_spec.version.value = version
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signature_defs)
    response.metadata[SIGNATURE_DEF].Pack(signatures)
    return response


def report(name: str, number: int | None, versions: Iterable[Version]) -> get_model_status_pb2.GetModelStatusResponse:
    """Build the status response for version `number` of the model; None means all `versions`.

    Raises:
        StatusError: NOT_FOUND; there is no such version.
    """
    chosen = [version for version in versions if number is None or version.number == number]
    if not chosen:
        what = "any versions" if number is None else f"version {number}"
        raise not_found(f"Could not find {what} of model {name}")
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in chosen:
        entry = response.model_version_status.add(version=version.number, state=int(version.state))
        entry.status.error_code = version.error.number if version.error else 0
        entry.status.error_message = version.error.message if version.error else ""
    return response
