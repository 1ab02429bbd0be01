"""The Makefile's targets, as a new user types them."""

import sys
from pathlib import Path


def make(target: str) -> list[str]:
    """`make TARGET` with the packages of the running interpreter, without installing any."""
    venv = Path(sys.prefix)
    installed = [f"--old-file={venv / f'{name}.installed'}" for name in ("train", "web", "dev")]
    return ["make", *installed, target, f"VENV={venv}"]
