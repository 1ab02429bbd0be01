"""The command `digits serve`: its flags, and the process that serves until a signal comes.

    $ digits serve artifacts/models/digits
    serving digits on 127.0.0.1:8500

This module imports neither TensorFlow nor gRPC before a server starts, so that `--help` is fast.
"""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving.local_server.config import BatchingParameters, ServerConfig
from serving.local_server.server import LocalServer
from serving.local_server.versions.discovery import VersionPolicy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `digits serve` to `parser`."""
    parser.description = (
        "Serve a folder of versions with TensorFlow Serving's gRPC and REST APIs on this\n"
        "machine: for laptops, tests and demos. For production give the same folder to\n"
        "the tensorflow/serving container."
    )
    defaults = ServerConfig(base_path=Path())

    def add(name: str, parse: Callable[[str], Any], explanation: str) -> None:
        default = getattr(defaults, name)
        suffix = f" (default: {default})" if default not in (None, "") else ""
        parser.add_argument(f"--{name.replace('_', '-')}", type=parse, default=default, help=explanation + suffix)

    parser.add_argument(
        "base_path", nargs="?", type=Path, metavar="MODELS_DIR", help="folder with a numeric child per version"
    )
    add("model_config_file", Path, "serve the models in this text file (ModelServerConfig) instead")
    add("model_name", str, "name of the model in requests")
    policy = parser.add_mutually_exclusive_group()
    policy.add_argument("--latest", type=int, metavar="N", help="serve the latest N versions (default: 1)")
    policy.add_argument("--all-versions", action="store_true", help="serve every version")
    policy.add_argument("--versions", type=int, nargs="+", metavar="V", help="serve only these versions")
    parser.add_argument(
        "--label",
        type=_label,
        action="append",
        default=[],
        metavar="NAME=VERSION",
        help="version label; may be repeated",
    )
    add("host", str, "address to listen on; 0.0.0.0 for all")
    add("port", int, "gRPC port; 0 takes a free one")
    add("grpc_socket_path", str, "also serve gRPC on this UNIX socket")
    add("grpc_channel_arguments", str, "gRPC options: name=value,name=value")
    add("ssl_config_file", Path, "encrypt gRPC with the certificates in this text file (SSLConfig)")
    parser.add_argument("--enable-grpc-healthcheck-service", action="store_true", help="serve grpc.health.v1.Health")
    add("rest_port", int, "port for REST and for Prometheus metrics; 0 takes a free one (default: neither)")
    add("rest_timeout_seconds", float, "deadline of a REST request")
    parser.add_argument(
        "--enable-batching", action="store_true", help="join requests into larger runs (default: run each alone)"
    )
    parser.add_argument(
        "--batching-parameters-file",
        type=Path,
        metavar="FILE",
        help="text file (BatchingParameters) for --enable-batching",
    )
    add("poll_wait_seconds", float, "seconds between polls of the folder")
    add("max_load_retries", int, "retries of a failed load")
    add("load_retry_interval_seconds", float, "seconds before a failed load is retried")
    add("max_message_bytes", int, "largest request")
    add("max_tensor_bytes", int, "largest input tensor")
    add("grace_period_seconds", float, "seconds for requests in flight after SIGTERM")
    add("intra_op_threads", int, "threads inside one operation; 0 means one per core")
    add("inter_op_threads", int, "operations that run at the same time; 0 means one per core")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, then finish the requests in flight.

    Returns:
        The exit status: 0 after a signal, 1 if nothing could be served, 2 for a setting out of range.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # TensorFlow warns that the v1 loading path is deprecated; this server uses it on purpose.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        server = LocalServer(args.base_path, **_settings(args))
        server.start()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot serve {args.base_path or args.model_config_file}: {error}", file=sys.stderr)
        return 1
    try:
        _serve_until(stopping, server)
    except RuntimeError as error:
        print(f"error: cannot serve {args.base_path or args.model_config_file}: {error}", file=sys.stderr)
        return 1
    finally:
        server.stop()
    return 0


def _serve_until(stopping: threading.Event, server: LocalServer) -> None:
    while not stopping.is_set() and not server.wait_until_serving(0.2):
        pass
    if server.target:
        name = (
            server.config.model_name if server.config.base_path else f"the models of {server.config.model_config_file}"
        )
        print(f"serving {name} on {server.target}", flush=True)
    if server.rest_target:
        name = server.config.model_name if server.config.base_path else "..."
        print(f"REST on http://{server.rest_target}/v1/models/{name}", flush=True)
    stopping.wait()


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    flags = vars(args)
    named = {name: flags[name] for name in ServerConfig.__dataclass_fields__ if name in flags and name != "base_path"}
    return {
        **named,
        "version_policy": _policy(args),
        "version_labels": dict(args.label),
        "batching": _batching(args.enable_batching, args.batching_parameters_file),
    }


def _batching(enabled: bool, file: Path | None) -> BatchingParameters | None:
    if file is None:
        return BatchingParameters() if enabled else None
    if not enabled:
        raise ValueError("--batching-parameters-file needs --enable-batching")
    from serving.local_server.text_files import read_batching_parameters

    return read_batching_parameters(file)


def _policy(args: argparse.Namespace) -> VersionPolicy:
    if args.all_versions:
        return VersionPolicy.all()
    if args.versions:
        return VersionPolicy.specific(*args.versions)
    return VersionPolicy.latest(1 if args.latest is None else args.latest)


def _label(text: str) -> tuple[str, int]:
    name, separator, version = text.rpartition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VERSION")
    return name, int(version)
