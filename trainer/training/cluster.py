"""Which workers train together, and the wait until all of them can be reached.

    TF_CONFIG={"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}

or the environment of an Indexed Job's pods: Kubernetes sets JOB_COMPLETION_INDEX, and the manifest sets DIGITS_WORKERS,
DIGITS_JOB and DIGITS_SERVICE. Worker i is then <job>-<i>.<service>, on DIGITS_WORKER_PORT.
"""

import json
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trainer.config import ConfigError
from trainer.errors import ExitCode, RunError
from trainer.runs.console import print_to_stderr

DEFAULT_PORT = 2222

CONNECT_SECONDS = 2.0
"""Time-out of one attempt to connect to another worker."""

PAUSE_SECONDS = 0.5
"""Pause between two rounds of attempts."""


CHIEF_GRACE_SECONDS = 10.0
"""How long a worker still looks for the last checkpoint after the chief has exited: a network volume may show it late."""


class PeersError(RunError):
    """Another worker could not be reached, or was lost."""

    exit_code = ExitCode.PEERS


@dataclass(frozen=True)
class Cluster:
    """All workers of a run, and the index of this one."""

    workers: tuple[str, ...]
    """host:port of each worker; the first is the chief."""
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this worker is the chief: it alone evaluates and writes."""
        return self.index == 0

    @property
    def peers(self) -> tuple[str, ...]:
        """The other workers."""
        return self.workers[: self.index] + self.workers[self.index + 1 :]


def find_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """Return the cluster that the environment describes; None for a single worker.

    Raises:
        ConfigError: the description is incomplete or contradicts itself.
    """
    if text := environment.get("TF_CONFIG", ""):
        try:
            cluster = _from_tf_config(json.loads(text))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ConfigError(
                f"TF_CONFIG is {text!r} ({type(error).__name__}: {error}); expected "
                '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
            ) from error
    else:
        cluster = _from_indexed_job(environment)
    if len(cluster.workers) < 2:
        return None
    if not 0 <= cluster.index < len(cluster.workers):
        raise ConfigError(
            f"this is worker {cluster.index} of {len(cluster.workers)}; expected an index below {len(cluster.workers)}"
        )
    for address in cluster.workers:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ConfigError(f"the address of a worker is {address!r}; expected host:port")
    if len(set(cluster.workers)) < len(cluster.workers):
        raise ConfigError(f"two workers have the same address: {', '.join(cluster.workers)}")
    return cluster


def wait_for_peers(cluster: Cluster, timeout_seconds: float, report_seconds: float = 10.0) -> None:
    """Return when every other worker can be reached under its address.

    TensorFlow would wait too, but it does not name the missing workers, and fails at once if a name does not resolve yet.

    Args:
        cluster: the workers.
        timeout_seconds: how long to wait.
        report_seconds: how often to name the missing workers on standard error.

    Raises:
        PeersError: names the workers that could not be reached, and the reasons.
    """
    deadline = time.monotonic() + timeout_seconds
    next_report = time.monotonic() + report_seconds
    # The others connect to this worker before TensorFlow listens on its port.
    with _listening(cluster.workers[cluster.index]):
        # A worker that was reached is not tried again: nobody accepts these connections, and they would fill its queue.
        missing = dict.fromkeys(cluster.peers, "")
        while missing := {peer: reason for peer in missing if (reason := unreachable(peer))}:
            found = f"{len(missing)} of {len(cluster.workers)} workers cannot be reached: " + ", ".join(
                f"{peer} ({reason})" for peer, reason in missing.items()
            )
            if time.monotonic() > deadline:
                raise PeersError(f"after {timeout_seconds:g} s {found}. Start all workers again")
            if time.monotonic() > next_report:
                print_to_stderr(f"waiting: {found}")
                next_report += report_seconds
            time.sleep(PAUSE_SECONDS)


def wait_for_chief(cluster: Cluster, is_recorded: Callable[[], bool]) -> None:
    """Return when the chief has recorded the run as trained.

    A worker that leaves earlier cannot be called back: if the chief dies before its last checkpoint, the next chief has to
    repeat the last steps together with all workers.

    Args:
        cluster: the workers.
        is_recorded: whether the run is recorded as trained; called until it is.

    Raises:
        PeersError: the chief cannot be reached any more, and has not recorded it.
    """
    lost_at = None
    while not is_recorded():
        reason = unreachable(cluster.workers[0])
        lost_at = (lost_at or time.monotonic()) if reason else None
        if lost_at and time.monotonic() > lost_at + CHIEF_GRACE_SECONDS:
            raise PeersError(
                f"the chief {cluster.workers[0]} did not record the run as trained and cannot be reached ({reason}). "
                "Start all workers again"
            )
        time.sleep(PAUSE_SECONDS)


def _from_tf_config(config: dict[str, Any]) -> Cluster:
    jobs, task = config["cluster"], config["task"]
    unknown = set(jobs) - {"chief", "worker"}
    if unknown:
        raise ValueError(f"unknown job: {', '.join(sorted(unknown))}; expected chief and worker")
    chiefs = list(jobs.get("chief", []))
    index = int(task["index"]) + {"chief": 0, "worker": len(chiefs)}[task["type"]]
    workers = (*chiefs, *jobs.get("worker", []))
    if wrong := [address for address in workers if not isinstance(address, str)]:
        raise ValueError(f"the address of a worker is {wrong[0]!r}; expected host:port")
    return Cluster(workers, index)


def _from_indexed_job(environment: Mapping[str, str]) -> Cluster:
    workers = _number(environment, "DIGITS_WORKERS", 1)
    if workers < 2:
        return Cluster((), 0)
    missing = [name for name in ("JOB_COMPLETION_INDEX", "DIGITS_JOB", "DIGITS_SERVICE") if not environment.get(name)]
    if missing:
        raise ConfigError(f"DIGITS_WORKERS is {workers}, but {', '.join(missing)} is not set; see k8s/README.md")
    job, service = environment["DIGITS_JOB"], environment["DIGITS_SERVICE"]
    port = _number(environment, "DIGITS_WORKER_PORT", DEFAULT_PORT)
    hosts = tuple(f"{job}-{i}.{service}:{port}" for i in range(workers))
    return Cluster(hosts, _number(environment, "JOB_COMPLETION_INDEX", 0))


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal():
        raise ConfigError(f"{name} is {text!r}; expected a whole number")
    return int(text)


def _listening(address: str) -> socket.socket:
    port = int(address.rpartition(":")[2])
    try:
        with suppress(OSError):  # this machine has no IPv6
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise PeersError(f"cannot listen on port {port}, where the other workers expect this one: {error}") from error


def unreachable(address: str) -> str:
    """Return the reason why a worker cannot be reached; empty if it can."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except socket.gaierror:
        return "its name does not resolve"
    except OSError as error:
        return str(error.strerror or error)
    return ""
