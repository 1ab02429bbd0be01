"""What a run was computed with: command, revision, versions and machine, for TensorBoard and the report."""

import contextlib
import os
import platform
import shlex
import subprocess
import sys
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path

REVISION = "DIGITS_REVISION"
"""Environment variable with the git revision, for an image that holds no repository."""


def environment() -> dict[str, str]:
    """Return the facts, by name."""
    return {
        "command": shlex.join(["python", "-m", "trainer", *sys.argv[1:]]),
        "revision": revision(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("tensorflow", "keras", "numpy")},
        "machine": f"{processor()}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release()}",
    }


@cache
def revision() -> str:
    """Return the git revision of this code, with "-dirty" after it if files were changed; "unknown" outside of git."""
    repository = Path(__file__).parents[2]
    found = ""
    if (repository / ".git").exists():  # An installed copy may lie inside the repository of another project.
        command = ["git", "-C", str(repository), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # No git here.
            found = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    return found or os.environ.get(REVISION, "unknown")


def processor() -> str:
    """Return the name of the CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def utc_now() -> str:
    """Return the time, for people: "2026-01-01 12:00:00 UTC"."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
