"""Training speed with TensorFlow's distributed dataset, and with one plain iterator per replica.

    $ python -m benchmarks.input_path --data-dir mnist/

prints the machine, the data, and

                                       images/s      (lowest - highest)   ratio
    default strategy, documented            ...        ... -      ...      1.00
    default strategy, ours                  ...        ... -      ...       ...
    MirroredStrategy, 1 replica, ...

and so on for the cases of benchmarks/strategies.py. Each ratio is to the documented way under the same strategy.

Documented: `strategy.experimental_distribute_dataset`, and `strategy.run(step, args=next(iterator))`. Ours: each replica
calls `next` on its own plain tf.data iterator, inside the replica function (trainer/training/input_pipeline.py). All else
is equal: the tf.data pipeline, the `fast` preset's network, batch and optimizer, and the steps in one compiled function.
The steps are written out here and not taken from trainer/training/loop.py: the documented way passes the batch to the
replica from outside.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.strategies import STRATEGIES
from testbed.report import argument_parser, machine, print_rates, write_json
from testbed.turns import Case, Turns, measure, training_split
from trainer.config import resolve
from trainer.settings import RuntimeSettings

DOCUMENTED, OURS = "documented", "ours"


def main() -> None:
    """Measure, print the table, write the JSON."""
    args = argument_parser(__doc__, rounds=5, steps=64).parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # Each case runs in a process that inherits it.
    data = str(args.data_dir or "random images of MNIST's size")
    where = machine()
    print(f"{where}\ndata: {data}; {args.rounds} rounds of {args.steps} steps", flush=True)
    cases: dict[str, Case] = {
        f"{name}, {path}": (train_with, (path, *strategy, args.data_dir, args.steps, args.rounds + 1))
        for name, strategy in STRATEGIES.items()
        for path in (DOCUMENTED, OURS)
    }
    rates = measure(cases, args.rounds)
    figures = print_rates(rates, reference=lambda case: case.replace(f", {OURS}", f", {DOCUMENTED}"))
    write_json(args.json, machine=where, data=data, steps=args.steps, cases=figures, rounds=rates)


def train_with(
    turns: Turns, path: str, strategy: str, replicas: int, data_dir: Path | None, steps: int, number_of_turns: int
) -> None:
    """Train in turns of `steps` steps, with batches of the given path, `DOCUMENTED` or `OURS`."""
    import tensorflow as tf

    from trainer.training.distribute import choose_devices
    from trainer.training.model import build_model
    from trainer.training.optimizer import build_optimizer, learning_rates

    config = resolve("fast")
    devices = choose_devices(RuntimeSettings(strategy=strategy, replicas=replicas))
    total_steps = -(-steps // config.steps_per_call) * config.steps_per_call * number_of_turns
    with devices.strategy.scope():
        model = build_model(config.model)
        optimizer = build_optimizer(config, learning_rates(total_steps, config))
        optimizer.build(model.trainable_variables)

    def replica_step(step: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        del step
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                tf.cast(labels, tf.int32), model(images, training=True)
            )
            loss = tf.reduce_sum(losses) / config.global_batch_size
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    take_step = _steps_on(path, data_dir, devices, config.global_batch_size, total_steps, replica_step)

    @tf.function
    def run_steps() -> tf.Tensor:
        loss = 0.0
        for _ in tf.range(config.steps_per_call):
            loss = devices.strategy.reduce("SUM", take_step(), axis=None)
        return loss

    while True:
        turns.wait()
        started = time.perf_counter()
        calls = -(-steps // config.steps_per_call)
        for _ in range(calls):
            run_steps().numpy()
        seconds = time.perf_counter() - started
        turns.report(calls * config.steps_per_call * config.global_batch_size / seconds)


def _steps_on(path: str, data_dir: Path | None, devices, size: int, steps: int, replica_step: Callable) -> Callable:
    """Return a function that runs a step on the next global batch of `size` examples and returns the replicas' losses."""
    import tensorflow as tf

    from trainer.training.input_pipeline import ReplicaSlice, replica_datasets

    replicas = devices.replicas if path == OURS else 1
    parts = [ReplicaSlice(0, size, replica, replicas) for replica in range(replicas)]
    datasets = replica_datasets(training_split(data_dir), range(steps), parts, devices.names[:replicas])
    if path == DOCUMENTED:
        # TensorFlow splits a distributed dataset along the first axis, so the step's number gets one.
        whole = datasets[0].map(lambda step, images, labels: (tf.fill(tf.shape(labels), step), images, labels))
        iterator = iter(devices.strategy.experimental_distribute_dataset(whole))
        return lambda: devices.strategy.run(replica_step, args=next(iterator))
    iterators = [iter(dataset) for dataset in datasets]

    def own_step() -> tf.Tensor:
        replica = int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group) or 0)
        return replica_step(*next(iterators[replica]))

    return lambda: devices.strategy.run(own_step)


if __name__ == "__main__":
    main()
