"""A model server without a model that responds at once, for benchmarks and tests of the client alone.

    $ python -m testbed.stand_in
    41235

Prints its port and runs until its standard input ends. It expects one image or picture per request.
"""

import argparse
import sys
from concurrent import futures

import grpc

import serving.client.wire_pb2 as wire
from serving import contract


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--version", type=int, default=1, help="the model version in every response")
    args = parser.parse_args()
    handler = grpc.unary_unary_rpc_method_handler(
        lambda *_: _respond(args.version), wire.PredictRequest.FromString, wire.PredictResponse.SerializeToString
    )
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": handler})]
    )
    print(server.add_insecure_port(f"{args.host}:{args.port}"), flush=True)
    server.start()
    sys.stdin.read()


def _respond(version: int) -> wire.PredictResponse:
    """Return the contract's outputs for one picture: a 7."""
    response = wire.PredictResponse()
    response.model_spec.version.value = version
    for name, dtype, shape, field, values in (
        (contract.DIGIT, wire.DT_INT64, [1], "int64_val", [7]),
        (contract.CONFIDENCE, wire.DT_FLOAT, [1], "float_val", [1.0]),
        (contract.PROBABILITIES, wire.DT_FLOAT, [1, 10], "float_val", [0.0] * 7 + [1.0, 0.0, 0.0]),
        (contract.NORMALIZED, wire.DT_UINT8, [1, *contract.IMAGE_SHAPE], "int_val", [0]),
        (contract.PROBLEM, wire.DT_STRING, [1], "string_val", [b""]),
    ):
        tensor = response.outputs[name]
        tensor.dtype = dtype
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
        getattr(tensor, field).extend(values)
    return response


if __name__ == "__main__":
    main()
