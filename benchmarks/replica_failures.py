"""What a client's requests suffer while one of three replicas is killed, frozen or cut off from the network.

    $ python -m benchmarks.replica_failures
    frozen: one of three replicas from second 10 to second 70; 16 callers, deadline 2 s
     seconds    responses   failed   latest
      0 -  5        1,234        0    0.01 s
    ...
    frozen: 0 of 23,456 requests failed; used again 0.4 s after the end

The replicas are stand-ins without a model, in processes of their own. The network is cut by taking down a link between two
network namespaces, which needs root and iproute2; without them that case is left out.
"""

import argparse
import contextlib
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from serving.client import DigitClient
from serving.client.errors import ServingError
from testbed.replicas import Replica, linked_namespace

IMAGE = np.zeros((1, 28, 28), np.uint8)
BUCKET_SECONDS = 5


@dataclass
class Record:
    """One entry per request: when it ended, how long it took, and the replica's version, or 0 and an error."""

    ended: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def main() -> None:
    """Parse the arguments, run the cases and print a curve and a summary of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=16, help="threads that send requests (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=2.0, metavar="SECONDS", help="(default: %(default)s)")
    parser.add_argument("--outage", type=float, default=60.0, metavar="SECONDS", help="(default: %(default)s)")
    args = parser.parse_args()
    cases: list[tuple[str, Callable, Callable]] = [
        ("killed", Replica.kill, Replica.start),
        ("frozen", Replica.freeze, Replica.resume),
        ("cut off", Replica.cut, Replica.restore),
    ]
    for name, begin, end in cases:
        if name == "cut off" and not (os.geteuid() == 0 and shutil.which("ip")):
            print("cut off: left out; it needs root and iproute2")
            continue
        with linked_namespace() if name == "cut off" else contextlib.nullcontext() as namespace:
            replicas = [Replica(1), Replica(2), Replica(3, namespace)]
            try:
                _run_case(name, replicas, begin, end, args)
            finally:
                for replica in replicas:
                    replica.resume()
                    replica.kill()


def _run_case(name: str, replicas: list[Replica], begin: Callable, end: Callable, args: argparse.Namespace) -> None:
    before, after = 10.0, 45.0
    times = f"from second {before:g} to second {before + args.outage:g}"
    print(f"{name}: one of three replicas {times}; {args.callers} callers, deadline {args.timeout:g} s", flush=True)
    record, stop, start = Record(), threading.Event(), time.monotonic()
    target = "ipv4:" + ",".join(replica.address for replica in replicas)
    with DigitClient(target, timeout_seconds=args.timeout) as client:
        callers = [threading.Thread(target=_call, args=(client, record, stop, start)) for _ in range(args.callers)]
        for caller in callers:
            caller.start()
        time.sleep(before)
        begin(replicas[-1])
        time.sleep(args.outage)
        end(replicas[-1])
        time.sleep(after)
        stop.set()
        for caller in callers:
            caller.join()
    _print_curve(name, record, before, before + args.outage)


def _call(client: DigitClient, record: Record, stop: threading.Event, start: float) -> None:
    while not stop.wait(0.05):
        sent = time.monotonic()
        version = 0
        try:
            version = int(client.predict(IMAGE).version[0])
        except ServingError as error:
            record.errors.append(type(error).__name__)
        ended = time.monotonic()
        record.ended.append(ended - start)
        record.seconds.append(ended - sent)
        record.versions.append(version)


def _print_curve(name: str, record: Record, begin: float, end: float) -> None:
    ended, seconds = np.array(record.ended), np.array(record.seconds)
    failed = np.array(record.versions) == 0
    print(" seconds    responses   failed   slowest")
    for bucket in range(0, int(ended.max()) + 1, BUCKET_SECONDS):
        here = (ended >= bucket) & (ended < bucket + BUCKET_SECONDS)
        slowest = seconds[here].max() if here.any() else 0
        until, succeeded = bucket + BUCKET_SECONDS, (here & ~failed).sum()
        print(f"{bucket:3} - {until:3}  {succeeded:9,}  {(here & failed).sum():7,}  {slowest:6.2f} s")
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(record.errors).items())
    last = f" ({kinds}), the last {ended[failed].max() - begin:.1f} s after its begin" if failed.any() else ""
    again = [time for time, version in zip(record.ended, record.versions, strict=True) if version == 3 and time > end]
    used = f"used again {min(again) - end:.1f} s after the end" if again else "not used again"
    print(f"{name}: {failed.sum():,} of {len(failed):,} requests failed{last}; {used}\n", flush=True)


if __name__ == "__main__":
    main()
