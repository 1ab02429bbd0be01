"""Which devices train, and the tf.distribute strategy over them.

Distribution appears here and in `train` only; whatever follows training takes an ordinary model.
"""

from dataclasses import dataclass

import tensorflow as tf

from trainer.config import ConfigError


@dataclass(frozen=True)
class Devices:
    """Where a run trains."""

    strategy: tf.distribute.Strategy
    names: tuple[str, ...]
    """Device of each local replica, in the order of their numbers."""

    @property
    def replicas(self) -> int:
        """Number of replicas over all workers."""
        return self.strategy.num_replicas_in_sync


def choose_devices(strategy: str = "auto", replicas: int = 0, *, jit_compile: bool = False) -> Devices:
    """Set up the devices and the strategy; to be called before TensorFlow runs its first op.

    Args:
        strategy: "auto" takes MirroredStrategy where there is more than one replica, "mirrored" always, "default" never.
        replicas: how many devices to use; 0 = all GPUs, or one CPU. Without GPUs, N makes N logical CPU devices.
        jit_compile: whether the step is to be compiled by XLA.

    Raises:
        ConfigError: more replicas than GPUs, or XLA together with MirroredStrategy.
    """
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Without growth the first process takes all of a GPU's memory, the evaluation of a second none.
        tf.config.experimental.set_memory_growth(gpu, True)
    if gpus and replicas > len(gpus):
        raise ConfigError(f"replicas is {replicas}, but there are {len(gpus)} GPU(s); expected at most that many")
    count = replicas or len(gpus) or 1
    mirrored = strategy == "mirrored" or (strategy == "auto" and count > 1)
    if jit_compile and mirrored:
        raise ConfigError(
            "jit_compile with MirroredStrategy leaks memory and hangs on TensorFlow 2.21 with Keras 3; "
            "drop --jit-compile, or train on one device with --strategy default --replicas 1"
        )
    names = tuple(f"{'GPU' if gpus else 'CPU'}:{i}" for i in range(count))
    if not gpus:
        _make_logical_cpus(count)
    if not mirrored:
        return Devices(tf.distribute.get_strategy(), names[:1])
    return Devices(tf.distribute.MirroredStrategy(list(names)), names)


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
    from tensorflow.python.eager import context  # the only place that tells

    return context.context()._initialized
