"""What the local server adds to the bare model over gRPC and over REST, and what dynamic batching gains.

    python -m benchmarks.serving_throughput [MODELS_DIR] [--generator h2load | python] [--json FILE]

measures in turn, round by round: the newest version in process (batches of 1 and 32), a gRPC server without a model, and
`python -m serving serve --enable-batching`, with 1 and with 32 single-image requests in flight, over gRPC on one
connection and over REST on one connection per request in flight. A separate process sends prepared bytes. It is h2load
(written in C, Debian's nghttp2-client) where that is installed. Python's gRPC takes as long to send a request as the
server takes to serve it, and on a small machine both share the cores.

Each ratio is printed beside an expected one, for a server whose time per request is gRPC's alone plus the model's alone.

Without MODELS_DIR, a small convnet with random weights is exported first. Prints medians over the rounds:

                                   images/s    latency ms
    in process, batch 1                ...           ...
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from serving import contract
from serving.commands.load import upright_strokes
from testbed.report import machine

REPOSITORY = Path(__file__).resolve().parent.parent
CONCURRENCY = 32
PREDICT = "/tensorflow.serving.PredictionService/Predict"
REST_PREDICT = f"/v1/models/{contract.MODEL_NAME}:predict"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "models_dir",
        nargs="?",
        type=Path,
        metavar="MODELS_DIR",
        help="folder of a model's versions (default: a small convnet)",
    )
    parser.add_argument("--json", type=Path, help="write every round's figures there")
    parser.add_argument("--generator", choices=("h2load", "python"), help="(default: h2load where it is found)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement")
    args = parser.parse_args()
    generator = args.generator or ("h2load" if shutil.which("h2load") else "python")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(f"{machine()}; load from {generator}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        models_dir = args.models_dir or export_convnet(Path(scratch))
        rounds = measure(models_dir, generator, args.rounds, args.seconds)
    summary = summarise(rounds)
    print(render(summary))
    if args.json:
        args.json.write_text(json.dumps({"cores": os.cpu_count(), "summary": summary, "rounds": rounds}, indent=2))


def measure(models_dir: Path, generator: str, rounds: int, seconds: float) -> list[dict[str, dict[str, float]]]:
    """Return one dict per round: case -> images_per_second and latency_ms (the median request)."""
    run_bare = load_bare(models_dir)
    load_of = {"h2load": h2load, "python": grpc_load}[generator]
    rest_of = {"h2load": rest_h2load, "python": rest_load}[generator]
    with served(models_dir) as (target, rest_target), served_without_model() as empty_target:
        for warmed in (target, empty_target):  # Raises if any request fails; h2load would not notice.
            grpc_load(warmed, CONCURRENCY, seconds)
        rest_load(rest_target, CONCURRENCY, seconds)
        return [
            {
                "in process, batch 1": bare_rate(run_bare, 1, seconds),
                f"in process, batch {CONCURRENCY}": bare_rate(run_bare, CONCURRENCY, seconds),
                "gRPC alone, 1 in flight": load_of(empty_target, 1, seconds),
                f"gRPC alone, {CONCURRENCY} in flight": load_of(empty_target, CONCURRENCY, seconds),
                "served, 1 in flight": load_of(target, 1, seconds),
                f"served, {CONCURRENCY} in flight": load_of(target, CONCURRENCY, seconds),
                "REST, 1 in flight": rest_of(rest_target, 1, seconds),
                f"REST, {CONCURRENCY} in flight": rest_of(rest_target, CONCURRENCY, seconds),
            }
            for _ in range(rounds)
        ]


def summarise(rounds: list[dict[str, dict[str, float]]]) -> dict[str, object]:
    """Return the medians over the rounds, of every figure and of the ratios taken within each round."""
    figures = {
        case: {name: statistics.median(one[case][name] for one in rounds) for name in rounds[0][case]}
        for case in rounds[0]
    }
    ratios = [_ratios(one_round) for one_round in rounds]
    return {"cases": figures, **{name: statistics.median(one[name] for one in ratios) for name in ratios[0]}}


def _ratios(one_round: dict[str, dict[str, float]]) -> dict[str, float]:
    bare_1, bare, grpc_1, grpc, served_1, served, rest_1, rest = (
        figures["images_per_second"] for figures in one_round.values()
    )
    latencies = [figures["latency_ms"] for figures in one_round.values()]
    in_turn_1, in_turn = 1 / (1 / grpc_1 + 1 / bare_1), 1 / (1 / grpc + 1 / bare)
    return {
        "batching_gain": served / served_1,
        "batching_gain_of_model_alone": bare / bare_1,
        "batching_gain_of_grpc_alone": grpc / grpc_1,
        "batching_gain_in_turn": in_turn / in_turn_1,
        "share_of_bare_model": served / bare,
        "share_of_bare_model_in_turn": in_turn / bare,
        "added_latency_ms": latencies[4] - latencies[0],
        "rest_over_grpc_latency": latencies[6] / latencies[4],
        "rest_batching_gain": rest / rest_1,
    }


def render(summary: dict) -> str:
    lines = [f"{'':28}{'images/s':>12}{'latency ms':>14}"]
    for case, figures in summary["cases"].items():
        lines.append(f"{case:28}{figures['images_per_second']:12,.0f}{figures['latency_ms']:14.2f}")
    lines += [
        "",
        f"{CONCURRENCY} in flight over 1:           {summary['batching_gain']:6.2f} x   (target: at least 5)",
        f"    the model alone:          {summary['batching_gain_of_model_alone']:6.2f} x",
        f"    gRPC alone:               {summary['batching_gain_of_grpc_alone']:6.2f} x",
        f"    gRPC, then the model:     {summary['batching_gain_in_turn']:6.2f} x",
        f"{CONCURRENCY} in flight over bare model:  {summary['share_of_bare_model']:6.2f} x   (target: at least 0.5)",
        f"    gRPC, then the model:     {summary['share_of_bare_model_in_turn']:6.2f} x",
        f"added latency, 1 in flight:   {summary['added_latency_ms']:6.2f} ms  (target: under 2)",
        f"REST over gRPC, latency:      {summary['rest_over_grpc_latency']:6.2f} x   (target: at most 1.5)",
        f"REST, {CONCURRENCY} in flight over 1:     {summary['rest_batching_gain']:6.2f} x   (target: above 1)",
    ]
    return "\n".join(lines)


def load_bare(models_dir: Path):
    """Return a function images -> outputs over the newest version's session: the fastest way to call it."""
    from serving.local_server.model.servable import Servable
    from serving.local_server.versions.discovery import VersionPolicy, find_versions

    if not (chosen := VersionPolicy().choose(find_versions(models_dir))):
        raise SystemExit(f"{models_dir}: no version; expected a model's folder, such as artifacts/models/digits")
    (path,) = chosen.values()
    servable = Servable(path)
    signature = servable.signature(contract.SIGNATURE)
    return lambda images: servable.run(signature, {contract.IMAGES: images})


def bare_rate(run_bare, batch_size: int, seconds: float) -> dict[str, float]:
    images = upright_strokes(batch_size, seed=0)
    for _ in range(20):
        run_bare(images)
    latencies, end = [], time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        run_bare(images)
        latencies.append(time.perf_counter() - started)
    return _figures(latencies, batch_size)


@contextlib.contextmanager
def served(models_dir: Path) -> Iterator[tuple[str, str]]:
    """Run `python -m serving serve` with batching; yield its gRPC and REST `host:port`."""
    flags = ["--port", "0", "--rest-port", "0", "--enable-batching"]
    command = [sys.executable, "-m", "serving", "serve", str(models_dir), *flags]
    server = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout
    try:
        lines = [server.stdout.readline(), server.stdout.readline()]
        if not lines[0].startswith("serving ") or not lines[1].startswith("REST on "):
            raise SystemExit(f"the server did not start: {lines!r}")
        yield lines[0].split()[-1], lines[1].split("/")[2]
    finally:
        server.terminate()
        server.wait(30)


@contextlib.contextmanager
def served_without_model() -> Iterator[str]:
    """Run the same gRPC stack in its own process, with a Predict that responds at once; yield its `host:port`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_respond_at_once, args=(theirs,), daemon=True)
    server.start()
    theirs.close()  # If the server fails before it has an address, `recv` raises EOFError and does not hang.
    try:
        yield ours.recv()
    finally:
        server.terminate()
        server.join(30)


def _respond_at_once(connection: Connection) -> None:
    import grpc

    async def predict(_: bytes, __: grpc.aio.ServicerContext) -> bytes:
        return bytes(100)  # About as long as a real response.

    async def serve() -> None:
        service, method = PREDICT.strip("/").split("/")
        handlers = {method: grpc.unary_unary_rpc_method_handler(predict)}
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        connection.send(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        await server.wait_for_termination()

    asyncio.run(serve())


def h2load(target: str, concurrency: int, seconds: float) -> dict[str, float]:
    """Keep `concurrency` single-image gRPC requests in flight with h2load."""
    request = _request_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        body = Path(scratch) / "body"
        body.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)  # gRPC's frame: not compressed, length
        headers = ["--header=content-type: application/grpc", "--header=te: trailers"]
        options = ["--clients=1", f"--max-concurrent-streams={concurrency}", *headers]
        return _run_h2load(f"http://{target}{PREDICT}", body, seconds, options)


def _run_h2load(url: str, body: Path, seconds: float, options: list[str]) -> dict[str, float]:
    log = body.with_name("log")
    timing = ["--warm-up-time=1", f"--duration={max(1, round(seconds))}", f"--log-file={log}"]
    done = subprocess.run(
        ["h2load", *timing, *options, f"--data={body}", url], capture_output=True, text=True, check=True
    )
    microseconds = [int(line.split("\t")[2]) for line in log.read_text().splitlines()]
    rate = re.search(r"([\d.]+) req/s", done.stdout)
    if not rate or ", 0 failed, 0 errored, 0 timeout" not in done.stdout:
        raise SystemExit(f"h2load failed:\n{done.stdout}{done.stderr}")
    return {"images_per_second": float(rate[1]), "latency_ms": statistics.median(microseconds) / 1000}


def rest_h2load(target: str, concurrency: int, seconds: float) -> dict[str, float]:
    """Keep `concurrency` single-image REST requests in flight with h2load over HTTP/1.1."""
    with tempfile.TemporaryDirectory() as scratch:
        body = Path(scratch) / "body"
        body.write_bytes(_rest_body())
        return _run_h2load(f"http://{target}{REST_PREDICT}", body, seconds, ["--h1", f"--clients={concurrency}"])


def rest_load(target: str, concurrency: int, seconds: float) -> dict[str, float]:
    """Keep `concurrency` single-image REST requests in flight from a separate process. Raise if any fails."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_send_rest, (target, _rest_body(), concurrency, seconds))


def grpc_load(target: str, concurrency: int, seconds: float) -> dict[str, float]:
    """Keep `concurrency` single-image requests in flight from a separate process. Raise if any fails."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_send, (target, _request_bytes(), concurrency, seconds))


def _request_bytes() -> bytes:
    import serving.client.wire_pb2 as wire_pb2

    image = upright_strokes(1, seed=1)
    shape = wire_pb2.TensorShapeProto(dim=[wire_pb2.TensorShapeProto.Dim(size=size) for size in image.shape])
    tensor = wire_pb2.TensorProto(dtype=4, tensor_shape=shape, tensor_content=image.tobytes())
    spec = wire_pb2.ModelSpec(name=contract.MODEL_NAME)
    return wire_pb2.PredictRequest(model_spec=spec, inputs={contract.IMAGES: tensor}).SerializeToString()


def _send(target: str, request: bytes, concurrency: int, seconds: float) -> dict[str, float]:
    return asyncio.run(_keep_in_flight(target, request, concurrency, seconds))


async def _keep_in_flight(target: str, request: bytes, concurrency: int, seconds: float) -> dict[str, float]:
    import grpc

    async with grpc.aio.insecure_channel(target) as channel:
        predict = channel.unary_unary(PREDICT)
        return await _measure([lambda: predict(request, timeout=30)] * concurrency, seconds)


def _send_rest(target: str, body: bytes, concurrency: int, seconds: float) -> dict[str, float]:
    return asyncio.run(_keep_rest_in_flight(target, body, concurrency, seconds))


async def _keep_rest_in_flight(target: str, body: bytes, concurrency: int, seconds: float) -> dict[str, float]:
    head = f"POST {REST_PREDICT} HTTP/1.1\r\nHost: {target}\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    def sender(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Callable[[], Awaitable[object]]:
        async def send() -> None:
            writer.write(head + body)
            headers = await reader.readuntil(b"\r\n\r\n")
            if not headers.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(headers.decode())
            length = re.search(rb"content-length: (\d+)", headers, re.IGNORECASE)
            assert length
            await reader.readexactly(int(length[1]))

        return send

    host, _, port = target.rpartition(":")
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(concurrency)]
    try:
        return await _measure([sender(*connection) for connection in connections], seconds)
    finally:
        for _, writer in connections:
            writer.close()


async def _measure(senders: list[Callable[[], Awaitable[object]]], seconds: float) -> dict[str, float]:
    latencies: list[float] = []

    async def send_until(end: float, send: Callable[[], Awaitable[object]]) -> None:
        while (started := time.perf_counter()) < end:
            await send()
            latencies.append(time.perf_counter() - started)

    for duration in (0.5, seconds):
        latencies.clear()
        end = time.perf_counter() + duration
        await asyncio.gather(*(send_until(end, send) for send in senders))
    return {**_figures(latencies, 1), "images_per_second": len(latencies) / seconds}


def _rest_body() -> bytes:
    return json.dumps({"instances": upright_strokes(1, seed=1).tolist()}).encode()


def _figures(latencies: list[float], batch_size: int) -> dict[str, float]:
    return {
        "images_per_second": batch_size * len(latencies) / sum(latencies),
        "latency_ms": 1000 * statistics.median(latencies),
    }


def export_convnet(base_path: Path) -> Path:
    """Write version 1 of a convnet of about 0.2 M weights, untrained, because only its speed matters."""
    import keras
    import tensorflow as tf

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(contract.IMAGE_SHAPE, dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Reshape((*contract.IMAGE_SHAPE, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(contract.CLASSES),
        ]
    )

    def serve(images):
        probabilities = tf.nn.softmax(model(images))
        return {
            contract.PROBABILITIES: probabilities,
            contract.DIGIT: tf.argmax(probabilities, axis=1),
            contract.CONFIDENCE: tf.reduce_max(probabilities, axis=1),
        }

    archive = keras.export.ExportArchive()
    archive.track(model)
    images = tf.TensorSpec([None, *contract.IMAGE_SHAPE], tf.uint8, name=contract.IMAGES)
    archive.add_endpoint(contract.SIGNATURE, serve, input_signature=[images])
    archive.write_out(str(base_path / "1"), verbose=False)
    return base_path


if __name__ == "__main__":
    main()
