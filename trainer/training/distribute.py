"""Which devices train, and the tf.distribute strategy over them.

Distribution appears in this package only: evaluation and publishing take an ordinary model.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2 import CoordinatedJob
from tensorflow.python.eager import context  # the public API has neither the state nor the time-outs of a cluster

from trainer.errors import ConfigError
from trainer.settings import RuntimeSettings
from trainer.training.cluster import Cluster, PeersError

LOST_AFTER_SECONDS = 10
"""How long a worker may send no heartbeat before the others count it as lost."""

JOIN_SECONDS = 60
"""How long TensorFlow may take to connect workers that can all be reached."""

SET_UP_SECONDS = 300.0
"""How long a worker may take to build the model, or to compile the step in its first call."""

MESSAGE_BYTES = 256
"""Length of a message of `Devices.broadcast_from_chief`."""


ALL_DEVICES = RuntimeSettings()

ONE_DEVICE = RuntimeSettings(strategy="default", replicas=1)


@dataclass(frozen=True)
class Devices:
    """Where a run trains."""

    strategy: tf.distribute.Strategy
    names: tuple[str, ...]
    """Device of each local replica, in the order of their numbers."""
    cluster: Cluster | None = None
    timeout_seconds: float = 0.0
    """How long workers wait for each other; of no use without `cluster`."""

    @property
    def replicas(self) -> int:
        """Number of replicas over all workers."""
        return self.strategy.num_replicas_in_sync

    @property
    def first_replica(self) -> int:
        """Number of the first local replica among all."""
        return self.cluster.index * len(self.names) if self.cluster else 0

    @property
    def local_replicas(self) -> range:
        """Numbers of the replicas that this process runs."""
        return range(self.first_replica, self.first_replica + len(self.names))

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that evaluates and writes."""
        return not self.cluster or self.cluster.is_chief

    @contextmanager
    def bounded(self, set_up_seconds: float = 0.0) -> Iterator[None]:
        """Make collectives in the block fail after `timeout_seconds` instead of waiting for ever for a worker that hangs.

        Args:
            set_up_seconds: more time, for a block that also builds or compiles something.

        Heartbeats detect a dead worker, but not a live one that never enters a collective. TensorFlow's own time-out
        starts a thread for each collective, about forty in a step. This timer is one thread for the block.
        """
        if not self.cluster:
            yield
            return
        message = f"another worker did not take part for {self.timeout_seconds:g} s"
        abort = threading.Timer(
            self.timeout_seconds + set_up_seconds,
            context.context().abort_collective_ops,
            (tf.errors.DEADLINE_EXCEEDED, message),
        )
        abort.daemon = True
        abort.start()
        try:
            yield
        finally:
            abort.cancel()

    def any_across_workers(self, *flags: bool) -> tuple[bool, ...]:
        """Return, for each flag, whether it is set on any worker. A collective: all workers have to call it."""
        if not self.cluster:
            return flags
        return tuple(bool(count) for count in self._sum([float(flag) for flag in flags]))

    def broadcast_from_chief(self, text: Callable[[], str]) -> str:
        """Return the chief's text, on all workers; `text` is called on the chief only. A collective."""
        if not self.cluster:
            return text()
        message = text().encode() if self.is_chief else b""
        assert len(message) <= MESSAGE_BYTES, "the messages have a fixed length"
        # Floats: TensorFlow keeps integers in host memory, where NCCL cannot reduce them.
        sent = self._sum([float(byte) for byte in message.ljust(MESSAGE_BYTES, b"\0")])
        return bytes(sent.astype(int).tolist()).rstrip(b"\0").decode()

    def _sum(self, values: Sequence[float]) -> np.ndarray:
        # The first replica of each worker has its values, the others have zeros.
        zeros = tf.zeros(len(values))
        parts = self.strategy.experimental_distribute_values_from_function(
            lambda replica: tf.constant(values) if replica.replica_id_in_sync_group == self.first_replica else zeros
        )
        with self.bounded():
            return _reduce(self.strategy, parts).numpy()


@tf.function(reduce_retracing=True, autograph=False)
def _reduce(strategy: tf.distribute.Strategy, parts: tf.distribute.DistributedValues) -> tf.Tensor:
    return strategy.reduce("SUM", strategy.run(tf.identity, args=(parts,)), axis=None)


def choose_devices(settings: RuntimeSettings = ALL_DEVICES, cluster: Cluster | None = None) -> Devices:
    """Set up the devices and the strategy; to be called before TensorFlow runs its first op.

    Args:
        settings: strategy, number of replicas, whether XLA compiles the step, and how long workers wait for each other.
        cluster: the workers that train together, with MultiWorkerMirroredStrategy; all must call this.

    Raises:
        ConfigError: more replicas than GPUs, or XLA together with MirroredStrategy.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and settings.replicas > len(gpus):
        raise ConfigError(
            f"replicas is {settings.replicas}, but there are {len(gpus)} GPU(s); expected at most that many"
        )
    count = settings.replicas or len(gpus) or 1
    mirrored = settings.strategy == "mirrored" or (settings.strategy == "auto" and count > 1) or bool(cluster)
    if settings.jit_compile and mirrored:
        raise ConfigError(
            "jit_compile with MirroredStrategy leaks memory and hangs on TensorFlow 2.21 with Keras 3; "
            "drop --jit-compile, or train on one device with --strategy default --replicas 1"
        )
    _use_gpus(gpus[:count])
    if cluster:
        if settings.strategy == "default":
            raise ConfigError(
                f"strategy is 'default' with {len(cluster.workers)} workers; expected 'auto' or 'mirrored'"
            )
        if not gpus and settings.replicas > 1:
            raise ConfigError(f"replicas is {settings.replicas}; several workers without GPUs have one replica each")
        return _join(cluster, settings.peer_timeout_seconds)
    names = tuple(f"{'GPU' if gpus else 'CPU'}:{i}" for i in range(count))
    if not gpus:
        _make_logical_cpus(count)
    if not mirrored:
        return Devices(tf.distribute.get_strategy(), names[:1])
    return Devices(tf.distribute.MirroredStrategy(list(names)), names)


@contextmanager
def peers_may_be_lost(cluster: Cluster | None) -> Iterator[None]:
    """Turn TensorFlow's errors of a broken cluster into a PeersError."""
    try:
        yield
    except (
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.FailedPreconditionError,
        tf.errors.InternalError,
        tf.errors.UnavailableError,
    ) as error:
        local = isinstance(error, tf.errors.InternalError | tf.errors.FailedPreconditionError)
        if not cluster or (local and not re.search("ollective|oordination|/task:|onnection", error.message)):
            raise
        raise PeersError(
            f"lost another worker ({' '.join(str(error).split())[:500]}). Start all workers again: "
            "they resume from the last checkpoint"
        ) from error


def _use_gpus(gpus: Sequence[tf.config.PhysicalDevice]) -> None:
    if gpus and tf.config.get_visible_devices("GPU") != list(gpus):
        # TensorFlow opens a context, with some hundred MB, on every card that it sees.
        tf.config.set_visible_devices(list(gpus), "GPU")
    for gpu in gpus:
        # Without growth a process reserves all memory of a GPU, and a second process finds none.
        tf.config.experimental.set_memory_growth(gpu, True)


def _join(cluster: Cluster, timeout_seconds: float) -> Devices:
    tasks = tf.train.ClusterSpec({"worker": list(cluster.workers)})
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        coordinated_jobs=[CoordinatedJob(name="worker", num_tasks=len(cluster.workers))],
        cluster_register_timeout_in_ms=JOIN_SECONDS * 1000,
        heartbeat_timeout_in_ms=LOST_AFTER_SECONDS * 1000,
    )
    mirrored = tf.distribute.MultiWorkerMirroredStrategy(
        tf.distribute.cluster_resolver.SimpleClusterResolver(
            tasks, task_type="worker", task_id=cluster.index, rpc_layer="grpc"
        )
    )
    names = tuple(mirrored.extended.worker_devices)
    _refuse_unequal(cluster, len(names))
    return Devices(mirrored, names, cluster, timeout_seconds)


def _refuse_unequal(cluster: Cluster, replicas: int) -> None:
    # TensorFlow assumes equal numbers; otherwise its first collective waits for replicas that do not exist.
    shared = context.context()
    shared.set_config_key_value(f"replicas of worker {cluster.index}", str(replicas))
    counts = [
        int(shared.get_config_key_value(f"replicas of worker {index}", JOIN_SECONDS * 1000))
        for index in range(len(cluster.workers))
    ]
    if len(set(counts)) > 1:
        raise ConfigError(
            f"the workers have {', '.join(map(str, counts))} replicas; expected the same number on each: set --replicas"
        )


def _make_logical_cpus(count: int) -> None:
    existing = len(tf.config.list_logical_devices("CPU")) if _is_initialised() else 0
    if existing >= count:
        return
    if existing:
        raise ConfigError(
            f"replicas is {count}, but TensorFlow has already started with {existing} CPU device(s); start a new process"
        )
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def _is_initialised() -> bool:
    return context.context()._initialized
