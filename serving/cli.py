"""`digits` and `python -m serving`: query a model server, wait for it, measure it, or run a small one.

    $ digits predict seven.png
    file       digit  confidence  version
    seven.png  7      99.8 %      20261122134501

This module only parses arguments. The commands are in serving/commands/, serving/web/ and serving/local_server/; each is
imported when it is chosen, so that `--help` prints at once and `predict` starts in a fraction of a second.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from serving.client.config import (
    MAX_ATTEMPTS,
    MAX_CHUNK_IMAGES,
    MIN_CONFIDENCE,
    REQUEST_TIMEOUT_SECONDS,
    ClientConfig,
    Tls,
)
from serving.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STATUS, EXIT_USAGE

_REQUIREMENTS = {"serve": "train", "web": "web"}
"""The file in requirements/ that a command needs; all others need client.txt."""

TIMEOUT_OF_EACH = f"deadline of each request (default: {REQUEST_TIMEOUT_SECONDS:g})"
"""Of `bench` and `web`, which send one request for each batch and for each drawing."""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m serving") -> int:
    """Run one command and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = build_parser(prog, serve=list(arguments[:1]) == ["serve"])
    try:
        args = parser.parse_args(arguments)
        return _run(args, parser)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] == "serving":
            raise
        requirements = f"requirements/{_REQUIREMENTS.get(args.command, 'client')}.txt"
        print(
            f"error: {args.command} needs the package {error.name}, which is not installed: "
            f"python -m pip install --require-hashes -r {requirements}",
            file=sys.stderr,
        )
        return EXIT_USAGE
    finally:
        _flush_output()


def _flush_output() -> None:
    """Write what is still buffered. Python would do so after the command, and exit with 120 if it fails."""
    if sys.stdout is None:  # closed by the caller
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # The reader closed the pipe early, as `| head` does.
            raise SystemExit(EXIT_FAILED) from None
        raise SystemExit(_fail(f"cannot write to standard output: {error.strerror}", EXIT_USAGE)) from None


def _run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Import the chosen command and run it."""
    if args.command == "serve":
        import serving.local_server.command as serve_command

        return serve_command.run(args)
    try:
        config = _client_config(args)
    except ValueError as error:
        parser.error(str(error))
    # Silence gRPC's own log: our errors carry the same text. GRPC_VERBOSITY=debug still shows it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if args.command == "web":
        from serving.web import command

        return command.run(args, config)
    return _run_client_command(args, config)


def _run_client_command(args: argparse.Namespace, config: ClientConfig) -> int:
    """Run the module of `serving.commands` that has the command's name, and turn its errors into an exit status."""
    from serving.client.errors import ServingError

    try:
        return importlib.import_module(f"serving.commands.{args.command}").run(args, config)
    except ServingError as error:
        from serving.commands.diagnosis import explain

        return _fail(explain(error, args.target, config), EXIT_FAILED)
    except BrokenPipeError:
        return EXIT_FAILED
    except (OSError, ValueError) as error:
        return _fail(str(error), EXIT_USAGE)


def _fail(message: str, exit_status: int) -> int:
    from serving.commands.output import printable

    print(f"error: {printable(message)}", file=sys.stderr)
    return exit_status


def build_parser(prog: str = "python -m serving", *, serve: bool) -> argparse.ArgumentParser:
    """Build the parser. The options of `serve` are defined by the server's module, which is imported only if chosen."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Query a server of the digit model, measure it, draw digits for it, or run one.",
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=EXIT_STATUS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    predict = add("predict", "print the digits in pictures, IDX files and .npy arrays")
    predict.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="any picture, IDX (.gz or not) or uint8 .npy"
    )
    _add_min_confidence(predict)
    predict.add_argument(
        "--show",
        type=_page,
        metavar="FILE.html",
        help="write a page with each picture beside the network's input",
    )
    _add_connection_options(predict)
    _add_connection_options(
        add("status", "print the state of each version of the model"),
        label=False,
        version_help="show only this version (default: all)",
    )
    _add_connection_options(add("metadata", "print the model's signatures"))
    wait = add("wait", "wait until a version is AVAILABLE, and print its number")
    _add_connection_options(
        wait,
        label=False,
        version_help="wait for this version (default: any)",
        timeout_seconds=60.0,
        timeout_help="how long to wait (default: %(default)s)",
    )
    bench = add("bench", "measure throughput and latency under load")
    _add_bench_options(bench)
    _add_connection_options(bench, timeout_help=TIMEOUT_OF_EACH)
    web = add("web", "serve a page on which to draw a digit, or drop a photo of one")
    _add_web_options(web)
    _add_connection_options(web, json=False, timeout_help=TIMEOUT_OF_EACH)
    served = add("serve", "serve a models directory from this machine: for laptops, tests and demos")
    if serve:
        import serving.local_server.command as serve_command

        serve_command.add_arguments(served)
    return parser


def _add_connection_options(
    parser: argparse.ArgumentParser,
    *,
    label: bool = True,
    json: bool = True,
    version_help: str = "use only this version (default: the newest served)",
    timeout_seconds: float | None = None,
    timeout_help: str = f"deadline of the whole command; without it, each request has {REQUEST_TIMEOUT_SECONDS:g} s",
) -> None:
    server = parser.add_argument_group("server and model")
    server.add_argument(
        "--target",
        default="localhost:8500",
        help="HOST:PORT, or for replicas dns:///HOST:PORT or ipv4:IP:PORT,IP:PORT (default: %(default)s)",
    )
    server.add_argument(
        "--model", default=ClientConfig.model_name, help="name of the served model (default: %(default)s)"
    )
    version = server.add_mutually_exclusive_group()
    version.add_argument("--version", type=int, help=version_help)
    if label:
        version.add_argument("--label", help="use only the version with this label")
    server.add_argument(
        "--timeout",
        type=_positive,
        default=timeout_seconds,
        metavar="SECONDS",
        help=timeout_help,
    )
    server.add_argument(
        "--header",
        type=_header,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="header (gRPC metadata) for every request, such as a gateway's token; may be repeated",
    )
    if json:
        server.add_argument("--json", action="store_true", help="print JSON instead of a table")
    tls = parser.add_argument_group("encryption")
    tls.add_argument("--tls", action="store_true", help="encrypt the connection; implied by the options below")
    tls.add_argument(
        "--ca-file", type=Path, metavar="PEM", help="certificate of the authority that signed the server's"
    )
    tls.add_argument("--certificate-file", type=Path, metavar="PEM", help="the client's own certificate")
    tls.add_argument("--key-file", type=Path, metavar="PEM", help="the key of the client's certificate")
    tls.add_argument("--server-name", help="the name in the server's certificate, if it differs from the target's")


def _add_min_confidence(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-confidence",
        type=_probability,
        default=MIN_CONFIDENCE,
        metavar="P",
        help='show predictions below this confidence as "not sure" (default: %(default)s)',
    )


def _add_web_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: %(default)s)"
    )
    parser.add_argument("--port", type=_port, default=8080, help="0 for any free port (default: %(default)s)")
    parser.add_argument("--open", action="store_true", help="open the page in this machine's browser")
    parser.add_argument(
        "--collect",
        type=Path,
        metavar="FOLDER",
        help="keep the pictures that users correct or confirm, for `digits learn FOLDER` (default: keep none)",
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="host name that browsers may use, besides localhost, --host and IP addresses; may be repeated",
    )
    _add_min_confidence(parser)


def _add_bench_options(parser: argparse.ArgumentParser) -> None:
    load = parser.add_mutually_exclusive_group()
    load.add_argument(
        "--concurrency",
        type=_count,
        nargs="+",
        metavar="N",
        default=[1, 8, 32],
        help="closed loop: keep N requests in flight (default: 1 8 32)",
    )
    load.add_argument(
        "--rate",
        type=_positive,
        nargs="+",
        metavar="PER_SECOND",
        help="open loop: requests at random times, this many per second on average, however slow the responses are",
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images per request (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=_positive, default=10.0, help="how long to measure each load (default: %(default)s)"
    )
    parser.add_argument(
        "--warmup",
        type=_not_negative,
        default=2.0,
        metavar="SECONDS",
        help="requests are sent this long before measuring (default: %(default)s)",
    )
    parser.add_argument(
        "--attempts",
        type=int,
        default=1,
        help=f"attempts per request, 1 to {MAX_ATTEMPTS}; 1 for no retries (default: %(default)s)",
    )


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return int(text)


def _positive(text: str) -> float:
    if not 0 < float(text) < math.inf:  # NaN fails every comparison
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, not {text}")
    return float(text)


def _not_negative(text: str) -> float:
    if not 0 <= float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"must be at least 0 and finite, not {text}")
    return float(text)


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    return name, value


def _port(text: str) -> int:
    if not 0 <= int(text) <= 65535:  # the system would use the remainder
        raise argparse.ArgumentTypeError(f"must be from 0 to 65535, not {text}")
    return int(text)


def _page(text: str) -> Path:
    # `--show a.jpg b.jpg` would overwrite the first picture with the page.
    if Path(text).suffix.lower() not in (".html", ".htm"):
        raise argparse.ArgumentTypeError(f"must end in .html, not {text}; give the pictures before --show")
    return Path(text)


def _probability(text: str) -> float:
    if not 0 <= float(text) <= 1:  # argparse reports a ValueError of float() itself
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text}")
    return float(text)


def _client_config(args: argparse.Namespace) -> ClientConfig:
    tls_options = (args.ca_file, args.certificate_file, args.key_file, args.server_name)
    tls = Tls(
        ca_file=args.ca_file,
        certificate_file=args.certificate_file,
        key_file=args.key_file,
        server_name=args.server_name,
    )
    config = ClientConfig(
        model_name=args.model,
        version=args.version,
        version_label=getattr(args, "label", None),
        timeout_seconds=args.timeout,
        tls=tls if args.tls or any(tls_options) else None,
        headers=args.header,
    )
    if args.command != "bench":
        return config
    if not 1 <= args.batch <= MAX_CHUNK_IMAGES:
        raise ValueError(f"--batch must be from 1 to {MAX_CHUNK_IMAGES}, not {args.batch}")
    # The benchmark measures requests, so each call must be a single one.
    return replace(config, max_attempts=args.attempts, chunk_images=args.batch)
