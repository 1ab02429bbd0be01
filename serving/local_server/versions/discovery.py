"""The version directories under a base path, found by TensorFlow Serving's rules.

A child whose *name* is an integer is a version: `7`, `00017`, `20261122134501`. Only the name counts: a plain file named
`8` is version 8 (and fails to load). Other names (`.7.tmp`, `7.retired`, `v7`) are skipped.
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
    """Selects the versions to serve among those on disk; by default the latest one."""

    kind: Literal["latest", "all", "specific"] = "latest"
    count: int = 1
    """For `latest`: how many versions."""
    versions: frozenset[int] = frozenset()
    """For `specific`: the versions."""

    def __post_init__(self) -> None:
        if self.kind == "latest" and self.count < 1:
            raise ValueError(f"the policy 'latest' has count {self.count}; it must be at least 1")
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
        """Return the versions of `found` to serve, with their paths."""
        if self.kind == "latest":
            return {version: found[version] for version in sorted(found)[-self.count :]}
        if self.kind == "specific":
            return {version: path for version, path in found.items() if version in self.versions}
        return dict(found)


def parse_version(name: str) -> int | None:
    """Return the version number in a child's name, or None if the name is no signed 64-bit decimal.

    Leading zeros, one sign and surrounding white space are accepted, as by `absl::SimpleAtoi`, which TF Serving calls.
    """
    if not _INTEGER.fullmatch(name) or len(name) > 255:
        return None
    version = int(name)
    return version if -(2**63) <= version < 2**63 else None


def find_versions(base_path: Path) -> dict[int, Path]:
    """Return version -> path for every numeric child.

    If two names have the same number (`7`, `007`), the last one in byte order wins, as in TF Serving.

    Raises:
        OSError: The base path cannot be listed.
    """
    found: dict[int, Path] = {}
    for child in sorted(base_path.iterdir(), key=lambda child: child.name.encode(errors="surrogateescape")):
        version = parse_version(child.name)
        if version is None:
            continue
        if version in found:
            log.warning("version %d has two directories; serving %s, ignoring %s", version, child, found[version])
        found[version] = child
    return found
