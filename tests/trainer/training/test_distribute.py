"""The choice of devices, and what replicas have to agree on."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import tensorflow as tf

from tests.trainer.conftest import REPOSITORY
from trainer.errors import ConfigError
from trainer.settings import RuntimeSettings
from trainer.training.distribute import ONE_DEVICE, choose_devices

OVERFLOW_ON_ONE_REPLICA = """
import keras, numpy as np, tensorflow as tf
from trainer.settings import RuntimeSettings
from trainer.training.distribute import choose_devices
from trainer.training.train_step import share_overflow

strategy = choose_devices(RuntimeSettings(strategy="mirrored", replicas=2)).strategy
with strategy.scope():
    weights = keras.Variable(np.ones(3, "float32"))
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=8.0, dynamic_growth_steps=2)
    optimizer.build([weights])

def step(gradients):
    def replica_step():
        replica = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
        optimizer.apply(share_overflow([tf.fill([3], gradients[replica])]), [weights])
    tf.function(lambda: strategy.run(replica_step))()
    scales = [float(scale) for scale in optimizer.dynamic_scale.value.values]
    print(weights.numpy().tolist(), scales, int(optimizer.iterations.numpy()))

step((1.0, np.inf))
step((np.nan, 1.0))
step((0.5, 0.5))
step((0.5, 0.5))
"""


def test_an_overflow_on_one_replica_makes_all_skip_the_step() -> None:
    command = [sys.executable, "-c", "import trainer\n" + OVERFLOW_ON_ONE_REPLICA]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[1.0, 1.0, 1.0] [4.0, 4.0] 0",
        "[1.0, 1.0, 1.0] [2.0, 2.0] 0",
        "[0.5, 0.5, 0.5] [2.0, 2.0] 1",
        "[0.0, 0.0, 0.0] [4.0, 4.0] 2",
    ]


@pytest.fixture
def visible(monkeypatch) -> list[list[str]]:
    """What TensorFlow is told to use, on a machine with four GPUs."""
    told: list[list[str]] = []
    cards = [SimpleNamespace(name=f"GPU {i}") for i in range(4)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: cards if kind == "GPU" else [])
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: cards)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda used, _: told.append([card.name for card in used]))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda *_: None)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda names: SimpleNamespace(names=names))
    return told


def test_only_the_gpus_that_are_used_are_visible(visible: list[list[str]]) -> None:
    assert choose_devices(ONE_DEVICE).names == ("GPU:0",)
    assert visible == [["GPU 0"]]
    assert choose_devices(RuntimeSettings(replicas=2)).names == ("GPU:0", "GPU:1")
    assert visible[1:] == [["GPU 0", "GPU 1"]]
    assert len(choose_devices().names) == 4
    assert len(visible) == 2, "all are visible already"


def test_more_replicas_than_gpus_are_rejected(visible: list[list[str]]) -> None:
    with pytest.raises(ConfigError, match=r"replicas is 5, but there are 4 GPU\(s\)"):
        choose_devices(RuntimeSettings(replicas=5))
    assert not visible


def test_xla_with_mirrored_strategy_is_rejected_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="leaks memory and hangs"):
        choose_devices(RuntimeSettings(strategy="mirrored", replicas=1, jit_compile=True))
