"""What a run would find on this machine, on one screen, problems first.

    python -m trainer doctor

    warning  data     MNIST is not prepared in artifacts/data: `python -m trainer data prepare`, which downloads it ...
    ok       python   3.11.7, TensorFlow 2.21.0, Keras 3.15.1, x86_64
    ok       devices  no GPU; a run of one worker trains on CPU:0 with no strategy
    ...

No check changes anything on disk.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from trainer.command_line import command_line
from trainer.errors import RunError
from trainer.precision import machine_precision
from trainer.publishing.versions import STAGING_PREFIX, live_versions
from trainer.runs.checkpoint import FOLDER, checkpoint_files, is_trained, step_of
from trainer.runs.folder import NEEDED_BYTES, resume_command
from trainer.runs.result import is_ended_trial
from trainer.training.cluster import find_cluster, unreachable


class Level(StrEnum):
    """How bad a finding is, the worst first."""

    PROBLEM = "PROBLEM"
    """A run would fail."""
    WARNING = "warning"
    """A run would be slower, or would miss something."""
    OK = "ok"


@dataclass(frozen=True)
class Finding:
    """One line of the screen."""

    level: Level
    topic: str
    text: str


Findings = Iterator[Finding]


def examine(artifacts: Path, data_dir: Path, model_dir: Path, environment: Mapping[str, str]) -> list[Finding]:
    """Return all findings, the worst first.

    Args:
        artifacts: root folder of everything that runs write.
        data_dir: folder of the data set.
        model_dir: folder of the served model's versions.
        environment: as in os.environ; it names the other workers.
    """
    checks: tuple[Callable[[], Findings], ...] = (
        _versions,
        _devices,
        _threads,
        lambda: _disk(artifacts),
        lambda: _data(data_dir),
        lambda: _models(model_dir),
        lambda: _runs(artifacts / "runs"),
        lambda: _peers(environment),
    )
    findings = [finding for check in checks for finding in check()]
    return sorted(findings, key=lambda finding: list(Level).index(finding.level))


def _versions() -> Findings:
    import keras
    import tensorflow as tf

    text = f"{platform.python_version()}, TensorFlow {tf.__version__}, Keras {keras.__version__}, {platform.machine()}"
    yield Finding(Level.OK, "python", text)


def _devices() -> Findings:
    import tensorflow as tf

    from trainer.training.distribute import choose_devices

    driver = _driver()
    build = tf.sysconfig.get_build_info()
    cuda = f"CUDA {build['cuda_version']}, cuDNN {build['cudnn_version']}" if "cuda_version" in build else "no CUDA"
    gpus = tf.config.list_physical_devices("GPU")
    if driver and not gpus:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        remedy = (
            f"CUDA_VISIBLE_DEVICES is {hidden!r}"
            if hidden is not None
            else f"its libraries were not found (this TensorFlow is built for {cuda}): pip install .[gpu]"
        )
        yield Finding(Level.PROBLEM, "devices", f"{driver}, but TensorFlow sees no GPU: {remedy}")
    devices = choose_devices()
    strategy = type(devices.strategy).__name__.replace("_DefaultDistributionStrategy", "no strategy")
    found = f"{driver}; {cuda}" if gpus else "no GPU"
    text = f"{found}; a run of one worker trains on {', '.join(devices.names)} with {strategy}"
    text += f"; --precision auto is {machine_precision()}"
    yield Finding(Level.OK, "devices", text)
    shared_memory = shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0
    if len(gpus) > 1 and shared_memory < 2**30:
        text = f"/dev/shm has {shared_memory >> 20} MiB: NCCL needs more between GPUs, 1 GiB for instance"
        yield Finding(Level.WARNING, "devices", text)


def _driver() -> str:
    """Return the GPUs and the driver as nvidia-smi knows them; empty where there are none."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = said.stdout.splitlines() if said.returncode == 0 else []
    return f"{len(lines)} x {lines[0]}" if lines else ""


def _threads() -> Findings:
    usable, quota = len(os.sched_getaffinity(0)), _cpu_quota()
    text = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    threads = (int(text) if text.isdecimal() else 0) or usable  # TensorFlow too ignores other values
    text = f"{usable} CPU cores, {threads} thread(s) for TensorFlow's operations"
    if quota and quota < threads:
        text += f", but a quota of {quota:g} cores: the threads would wait for each other; set TF_NUM_INTRAOP_THREADS"
        yield Finding(Level.WARNING, "threads", text)
    else:
        yield Finding(Level.OK, "threads", text)


def _cpu_quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """Cores that the container may use at once; 0 = no limit."""
    quota, period = file.read_text().split() if file.is_file() else ("max", "1")
    return 0.0 if quota == "max" else int(quota) / int(period)


def _disk(artifacts: Path) -> Findings:
    existing = next(folder for folder in (artifacts.absolute(), *artifacts.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(Level.PROBLEM, "disk", f"{existing} cannot be written to; choose another --artifacts")
        return
    free = shutil.disk_usage(existing).free
    level = Level.OK if free >= NEEDED_BYTES else Level.PROBLEM
    needed = "" if level is Level.OK else f"; a run needs {NEEDED_BYTES >> 20} MiB"
    yield Finding(level, "disk", f"{artifacts}: {free / 2**30:.1f} GiB free{needed}")


def _data(data_dir: Path) -> Findings:
    from trainer.data.mnist import BUILDER

    yield Finding(Level.OK, "data", "optdigits is embedded: `--preset quickstart` needs no download")
    prepared = data_dir.joinpath(*BUILDER.split(":"))
    if prepared.is_dir():
        yield Finding(Level.OK, "data", f"MNIST is prepared in {prepared}")
        return
    manual = data_dir / "downloads" / "manual"
    given = len(list(manual.glob("*-ubyte.gz"))) if manual.is_dir() else 0
    source = "from the four files there" if given == 4 else f"which downloads it ({given} of 4 files are in {manual})"
    text = f"MNIST is not prepared in {data_dir}: `{command_line('data', 'prepare')}`, {source}"
    yield Finding(Level.WARNING, "data", text)


def _models(model_dir: Path) -> Findings:
    versions = live_versions(model_dir)
    newest = f", the newest is {versions[-1]}" if versions else ""
    yield Finding(Level.OK, "models", f"{model_dir}: {len(versions)} version(s){newest}")
    if model_dir.is_dir() and (left := list(model_dir.glob(f"{STAGING_PREFIX}*"))):
        text = f"{left[0]} is being written, or was left by a killed publisher; the next publish removes it"
        yield Finding(Level.OK, "models", text)


def _runs(folder: Path) -> Findings:
    runs = sorted(folder.iterdir()) if folder.is_dir() else []
    for run in runs:
        files = checkpoint_files(run / FOLDER)
        if files and not is_trained(run) and not is_ended_trial(run):
            step = step_of(files[-1])
            text = (
                f"{run} has checkpoints up to step {step}. Unless a process is training it, resume it with "
                f"`{resume_command(run)}`"
            )
            yield Finding(Level.WARNING, "runs", text)


def _peers(environment: Mapping[str, str]) -> Findings:
    try:
        cluster = find_cluster(environment)
    except RunError as error:
        yield Finding(Level.PROBLEM, "peers", str(error))
        return
    if not cluster:
        yield Finding(Level.OK, "peers", "none: neither TF_CONFIG nor DIGITS_WORKERS names other workers")
        return
    role = "the chief" if cluster.is_chief else f"worker {cluster.index}"
    text = f"this is {role} of {len(cluster.workers)}, {cluster.workers[cluster.index]}: MultiWorkerMirroredStrategy"
    yield Finding(Level.OK, "peers", text)
    for peer in cluster.peers:
        reason = unreachable(peer)
        # Workers listen only once a run has started: before that, an unreachable one is no problem.
        yield Finding(Level.WARNING if reason else Level.OK, "peers", f"{peer}: {reason or 'can be reached'}")
