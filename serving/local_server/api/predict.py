"""PredictRequest -> checked inputs, and outputs -> PredictResponse."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from tensorflow_serving.apis import predict_pb2

import serving.local_server.model.tensors as tensors
from serving.local_server.errors import invalid_argument
from serving.local_server.model.servable import LoadedSignature, Servable


@dataclass(frozen=True)
class Prepared:
    """A checked request."""

    signature: LoadedSignature
    inputs: dict[str, np.ndarray]
    outputs: Collection[str]
    """Aliases of the outputs to return."""


def prepare(servable: Servable, request: predict_pb2.PredictRequest, *, max_tensor_bytes: int) -> Prepared:
    """Check `request` against the signature it names and decode its inputs.

    Raises:
        StatusError: FAILED_PRECONDITION for an unknown signature; INVALID_ARGUMENT for missing or unknown inputs, unknown
            or repeated outputs, and tensors that `tensors.decode` rejects.
    """
    signature = servable.signature(request.model_spec.signature_name)
    _check_aliases(set(request.inputs), signature)
    inputs = {
        alias: tensors.decode(request.inputs[alias], tensor, max_bytes=max_tensor_bytes)
        if alias in request.inputs
        else signature.defaults[alias]
        for alias, tensor in signature.inputs.items()
    }
    return Prepared(signature, inputs, _requested_outputs(list(request.output_filter), signature))


def respond(
    name: str, version: int, prepared: Prepared, outputs: Mapping[str, np.ndarray]
) -> predict_pb2.PredictResponse:
    """Build the response. Its spec has the requested name, the resolved signature and the version, never a label."""
    response = predict_pb2.PredictResponse()
    response.model_spec.name = name
    response.model_spec.signature_name = prepared.signature.name
    response.model_spec.version.value = version
    for alias in prepared.outputs:
        tensors.encode(outputs[alias], response.outputs[alias])
    return response


def _check_aliases(sent: set[str], signature: LoadedSignature) -> None:
    known = set(signature.inputs)
    extra, missing = sent - known, known - sent - set(signature.defaults)
    if not extra and not missing:
        return
    sent_text, known_text, extra_text, missing_text = (
        ",".join(sorted(aliases)) for aliases in (sent, known, extra, missing)
    )
    raise invalid_argument(
        f"input size does not match signature: {len(sent)}!={len(known)} len({{{sent_text}}}) != len({{{known_text}}}). "
        f"Sent extra: {{{extra_text}}}. Missing but required: {{{missing_text}}}."
        if len(sent) != len(known)
        else f"Inputs contain an invalid name. Sent extra: {{{extra_text}}}. Missing but required: {{{missing_text}}}."
    )


def _requested_outputs(output_filter: list[str], signature: LoadedSignature) -> Collection[str]:
    for index, alias in enumerate(output_filter):
        if alias not in signature.outputs:
            known = ",".join(signature.outputs)
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set {{{known}}}."
            )
        if alias in output_filter[:index]:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
    return output_filter or signature.outputs.keys()
