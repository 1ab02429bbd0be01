"""The version directories under a base path, found by TensorFlow Serving's rules.

A child whose *name* is an integer is a version: `7`, `00017`, `20261122134501`. Nothing else about it is looked at: a
plain file named `8` is version 8 (and will fail to load). Anything else (`.7.tmp`, `7.retired`, `v7`) is skipped.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

log = logging.getLogger(__name__)

_INTEGER = re.compile(r"[ \t\n\v\f\r]*[+-]?[0-9]+[ \t\n\v\f\r]*", re.ASCII)


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions on disk are to be served; by default the latest one."""

    kind: Literal["latest", "all", "specific"] = "latest"
    count: int = 1
    """With `latest`: how many."""
    versions: frozenset[int] = frozenset()
    """With `specific`: which."""

    def __post_init__(self) -> None:
        if self.kind == "latest" and self.count < 1:
            raise ValueError(f"the latest {self.count} versions would serve nothing; count must be at least 1")
        if self.kind == "specific" and not self.versions:
            raise ValueError("the policy 'specific' needs at least one version")

    @classmethod
    def latest(cls, count: int = 1) -> "VersionPolicy":
        return cls("latest", count)

    @classmethod
    def all(cls) -> "VersionPolicy":
        return cls("all")

    @classmethod
    def specific(cls, *versions: int) -> "VersionPolicy":
        return cls("specific", versions=frozenset(versions))

    def choose(self, found: dict[int, Path]) -> dict[int, Path]:
        """Returns the part of `found` that is to be served."""
        if self.kind == "latest":
            return {version: found[version] for version in sorted(found)[-self.count :]}
        if self.kind == "specific":
            return {version: path for version, path in found.items() if version in self.versions}
        return dict(found)


def parse_version(name: str) -> int | None:
    """Returns the version that a child's name stands for, or None: a decimal that fits a signed 64-bit integer.

    As the `absl::SimpleAtoi` that TF Serving calls: leading zeros, one sign and surrounding white space are accepted.
    """
    if not _INTEGER.fullmatch(name) or len(name) > 255:
        return None
    version = int(name)
    return version if -(2**63) <= version < 2**63 else None


def find_versions(base_path: Path) -> dict[int, Path]:
    """Returns version -> path for every numeric child. Raises OSError where the base path cannot be listed.

    Of two names for one number (`7`, `007`) the last in byte order wins, as in TF Serving.
    """
    found: dict[int, Path] = {}
    for child in sorted(base_path.iterdir(), key=lambda child: child.name.encode(errors="surrogateescape")):
        version = parse_version(child.name)
        if version is None:
            continue
        if version in found:
            log.warning("version %d is in both %s and %s; the first is ignored", version, found[version], child)
        found[version] = child
    return found
