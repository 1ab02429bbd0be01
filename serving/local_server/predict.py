"""PredictRequest -> PredictResponse, apart from where and when the model runs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from tensorflow_serving.apis import predict_pb2

import serving.local_server.tensors as tensors
from serving.local_server.errors import invalid_argument
from serving.local_server.servable import Servable, Signature


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    max_rows: int
    max_bytes: int


@dataclass(frozen=True)
class Prepared:
    """A checked request."""

    signature: Signature
    inputs: dict[str, np.ndarray]
    outputs: Collection[str]
    """Aliases to answer with."""


def prepare(servable: Servable, request: predict_pb2.PredictRequest, limits: Limits) -> Prepared:
    """Checks `request` against the signature it names and decodes its inputs.

    Raises:
      ServingError: FAILED_PRECONDITION for an unknown signature; INVALID_ARGUMENT for inputs or outputs that the
        signature does not have, or that it has and the request lacks, and for tensors that `tensors.decode` refuses.
    """
    signature = servable.signature(request.model_spec.signature_name)
    _check_aliases(set(request.inputs), set(signature.inputs))
    inputs = {
        alias: tensors.decode(request.inputs[alias], spec, max_rows=limits.max_rows, max_bytes=limits.max_bytes)
        for alias, spec in signature.inputs.items()
    }
    return Prepared(signature, inputs, _wanted_outputs(list(request.output_filter), signature))


def respond(
    name: str, version: int, prepared: Prepared, outputs: Mapping[str, np.ndarray]
) -> predict_pb2.PredictResponse:
    """Builds the answer: the name asked for, the signature resolved, the version that served, never a label."""
    response = predict_pb2.PredictResponse()
    response.model_spec.name = name
    response.model_spec.signature_name = prepared.signature.name
    response.model_spec.version.value = version
    for alias in prepared.outputs:
        tensors.encode(outputs[alias], response.outputs[alias])
    return response


def _check_aliases(sent: set[str], wanted: set[str]) -> None:
    if sent == wanted:
        return
    extra, missing = (",".join(sorted(aliases)) for aliases in (sent - wanted, wanted - sent))
    raise invalid_argument(
        f"input size does not match signature: {len(sent)}!={len(wanted)} len({{{','.join(sorted(sent))}}}) != "
        f"len({{{','.join(sorted(wanted))}}}). Sent extra: {{{extra}}}. Missing but required: {{{missing}}}."
        if len(sent) != len(wanted)
        else f"Inputs contain an invalid name. Sent extra: {{{extra}}}. Missing but required: {{{missing}}}."
    )


def _wanted_outputs(output_filter: list[str], signature: Signature) -> Collection[str]:
    for index, alias in enumerate(output_filter):
        if alias not in signature.outputs:
            known = ",".join(signature.outputs)
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set {{{known}}}."
            )
        if alias in output_filter[:index]:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
    return output_filter or signature.outputs.keys()
