"""Training speed of a preset, by default `accurate`, with three batch norm layers, side by side.

    $ python -m benchmarks.batch_norm --data-dir mnist/

prints the machine, the data, and

                             images/s      (lowest - highest)   ratio
    keras, as it comes            ...        ... -      ...      1.00
    keras, synchronized=True      ...        ... -      ...       ...
    trainer.training.model.BatchNorm       ...        ... -      ...       ...

The first layer is `keras.layers.BatchNormalization`. It runs a dozen element-wise kernels. The second one also averages
the statistics over all replicas. Training on several replicas needs that. The third one is ours: it calls TensorFlow's
fused kernel when one replica trains alone, as here. `trainer.training.loop.train` runs with the whole preset
(augmentation, AdamW, averaged weights), so a ratio compares whole training steps.
"""

from pathlib import Path

from testbed.report import argument_parser, machine, print_rates, write_json
from testbed.turns import Case, Turns, add_preset, measure, train_in_turns
from trainer.config import TrainConfig, resolve

KERAS = "keras, as it comes"
SYNCHRONIZED = "keras, synchronized=True"
OURS = "trainer.training.model.BatchNorm"


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argument_parser(__doc__, rounds=5, steps=32)
    add_preset(parser)
    args = parser.parse_args()
    data = str(args.data_dir or "random images of MNIST's size")
    where = machine()
    print(f"{where}\n{args.preset}, data: {data}; {args.rounds} rounds of {args.steps} steps", flush=True)
    # Without unaugmented epochs: the run is so short that they would fill it.
    config = resolve(args.preset, flags={"strategy": "default", "replicas": 1, "unaugmented_epochs": 0.0})
    cases: dict[str, Case] = {
        name: (train_with, (name, config, args.data_dir, args.steps, args.rounds))
        for name in (KERAS, SYNCHRONIZED, OURS)
    }
    rates = measure(cases, args.rounds)
    figures = print_rates(rates, reference=lambda _: KERAS)
    write_json(args.json, machine=where, data=data, steps=args.steps, cases=figures, rounds=rates)


def train_with(turns: Turns, layer: str, config: TrainConfig, data_dir: Path | None, steps: int, rounds: int) -> None:
    """Train the network with the batch norm of that name, in turns."""
    import keras

    import trainer.training.model

    def keras_layer(*, momentum: float, **_: object) -> keras.layers.Layer:
        return keras.layers.BatchNormalization(momentum=momentum, synchronized=layer == SYNCHRONIZED)

    if layer != OURS:
        # The network of trainer/training/model.py looks its layer up by this name.
        trainer.training.model.BatchNorm = keras_layer
    train_in_turns(turns, config, data_dir, steps, rounds)


if __name__ == "__main__":
    main()
