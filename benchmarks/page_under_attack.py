"""How long an honest user of the page waits for answers while others attack its server.

    $ python -m benchmarks.page_under_attack
    900 connections from another address, from second 10 to second 70; one user draws
     seconds    answers   failed   median   slowest
      0 -  5         45        0     6 ms      9 ms
    ...
    0 of 720 requests failed, the slowest answer took 0.04 s

A third of the attackers send headers a byte at a time, a third send pictures slowly, and a third send nothing. Each opens
a new connection one second after the server has closed its own. With `--same-address` they share the user's address, as
behind one proxy. The model server is a stand-in without a model (testbed/stand_in.py).
"""

import argparse
import asyncio
import contextlib
import http.client
import itertools
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

USER, OTHER = "127.0.0.1", "127.0.0.2"
PAUSE_SECONDS = 0.1
"""Between the user's requests: the page sends about as many while a hand moves."""
TRICKLE_SECONDS = 1.0
HEADERS = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
BUCKET_SECONDS = 5


@dataclass(frozen=True)
class Answer:
    """One request of the user: when it was sent (seconds since the start), how long it took, and whether it failed."""

    sent: float
    seconds: float
    failed: bool


def main() -> None:
    """Parse the arguments, draw and attack, and print the curve and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=900, help="of the attackers (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="length of the attack (default: %(default)s)")
    parser.add_argument("--same-address", action="store_true", help="attack from the user's address")
    args = parser.parse_args()
    before = 10
    source = USER if args.same_address else OTHER
    where = "the user's address" if args.same_address else "another address"
    times = f"from second {before} to second {before + args.seconds:g}"
    print(f"{args.connections} connections from {where}, {times}; one user draws", flush=True)
    with page() as port:
        answers = draw(port, before)
        with attack(port, args.connections, source):
            answers += draw(port, args.seconds, before)
        answers += draw(port, before, before + args.seconds)
    _print_curve(answers)


@contextlib.contextmanager
def page() -> Iterator[int]:
    """Run the page in front of a stand-in and yield its port."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> str:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout
            return process.stdout.readline().strip()

        target = f"127.0.0.1:{start('testbed.stand_in')}"
        yield int(start("serving", "web", "--target", target, "--port", "0").rpartition(":")[2])


@contextlib.contextmanager
def attack(port: int, connections: int, source: str) -> Iterator[None]:
    """Attack from the address `source`, in a process of its own, until the block ends."""
    process = multiprocessing.get_context("spawn").Process(target=_run_attack, args=(port, connections, source))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def draw(port: int, seconds: float, start: float = 0) -> list[Answer]:
    """Send a picture every tenth of a second over a connection that is kept, as a browser does."""
    answers, begin = [], time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=(USER, 0))
    while (sent := time.monotonic()) < begin + seconds:
        failed = not _predict(connection)
        answers.append(Answer(start + sent - begin, time.monotonic() - sent, failed))
        time.sleep(PAUSE_SECONDS)
    connection.close()
    return answers


def _predict(connection: http.client.HTTPConnection) -> bool:
    for _ in range(2):  # A browser sends again when the server has closed a connection between two requests.
        try:
            connection.request("POST", "/predict", bytes(2000), {"content-type": "image/png"})
            response = connection.getresponse()
            response.read()
            return response.status == 200
        except (OSError, http.client.HTTPException):
            connection.close()
    return False


def _run_attack(port: int, connections: int, source: str) -> None:
    asyncio.run(_attack(port, connections, source))


async def _attack(port: int, connections: int, source: str) -> None:
    attacks = itertools.cycle(
        [
            (HEADERS + b"X-Slow: ", b"a"),
            (HEADERS + b"Content-Length: 10000000\r\n\r\n", bytes(20_000)),  # above the minimum rate
            (b"", b""),
        ]
    )
    async with asyncio.TaskGroup() as tasks:
        for begin, part in itertools.islice(attacks, connections):
            tasks.create_task(_attack_for_ever(port, source, begin, part))


async def _attack_for_ever(port: int, source: str, begin: bytes, part: bytes) -> None:
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            writer.write(begin)
            while not reader.at_eof():
                writer.write(part)
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1000), TRICKLE_SECONDS)
            writer.close()
        await asyncio.sleep(TRICKLE_SECONDS)


def _print_curve(answers: list[Answer]) -> None:
    print(" seconds    answers   failed   median   slowest")
    for bucket, group in itertools.groupby(answers, key=lambda answer: int(answer.sent // BUCKET_SECONDS)):
        here = list(group)
        seconds, failed = np.array([one.seconds for one in here]), sum(one.failed for one in here)
        times = f"{1e3 * np.median(seconds):4.0f} ms  {1e3 * seconds.max():5.0f} ms"
        print(
            f"{bucket * BUCKET_SECONDS:3} - {(bucket + 1) * BUCKET_SECONDS:3}  {len(here) - failed:9}  {failed:7}  {times}"
        )
    failed = sum(answer.failed for answer in answers)
    slowest = max(answer.seconds for answer in answers)
    print(f"{failed} of {len(answers)} requests failed, the slowest answer took {slowest:.2f} s")


if __name__ == "__main__":
    main()
