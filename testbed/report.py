"""What every benchmark prints and saves: the machine, a table of speeds, a JSON file."""

import argparse
import contextlib
import json
import os
import platform
import statistics
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path


def argument_parser(description: str | None, *, rounds: int, steps: int | None = None) -> argparse.ArgumentParser:
    """Return a parser with the flags that several benchmarks share; it has `--steps` only if a number is given."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each case (default: %(default)s)")
    if steps:
        parser.add_argument("--steps", type=int, default=steps, help="training steps in a turn (default: %(default)s)")
        parser.add_argument(
            "--data-dir", type=Path, help="folder of IDX files (default: random images of MNIST's size)"
        )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser


def machine() -> str:
    """Return one line about the machine and the versions that the figures come from."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "by TensorFlow's choice")  # `import trainer` sets it
    return (
        f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, "
        f"TensorFlow {version('tensorflow')}, Keras {version('keras')}, oneDNN {onednn}"
    )


def print_rates(rates: dict[str, list[float]], reference: Callable[[str], str]) -> dict[str, dict[str, float]]:
    """Print median, range and ratio of each case to its reference; return medians and ratios.

    The ratio is the median of the ratios in each round: a machine whose speed drifts changes both cases of a round alike.

    Args:
        rates: images per second of each case in each round, as `testbed.turns.measure` returns them.
        reference: name of a case -> name of the case that it is compared with.
    """
    width = max(map(len, rates))
    figures = {}
    print(f"{'':{width}}  images/s      (lowest - highest)   ratio")
    for name, values in rates.items():
        median = statistics.median(values)
        ratio = statistics.median(a / b for a, b in zip(values, rates[reference(name)], strict=True))
        print(f"{name:{width}}  {median:8,.0f}  {min(values):8,.0f} - {max(values):8,.0f}  {ratio:6.2f}")
        figures[name] = {"images_per_second": median, "ratio": ratio}
    return figures


def write_json(file: Path | None, **figures: object) -> None:
    """Write the figures to a file, if one is given."""
    if file:
        file.write_text(json.dumps(figures, indent=2, default=str) + "\n")
