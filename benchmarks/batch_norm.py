"""What the fused batch norm brings: the `accurate` preset's training with three batch norm layers, side by side.

    $ python -m benchmarks.batch_norm --data-dir mnist/

prints the machine, the data, and

                             images/s      (lowest - highest)   ratio
    keras, as it comes            ...        ... -      ...      1.00
    keras, synchronized=True      ...        ... -      ...       ...
    trainer.training.model.BatchNorm       ...        ... -      ...       ...

The first is `keras.layers.BatchNormalization`, which computes moments and normalises in a dozen element-wise kernels;
the second is the same with statistics over all replicas, as training on several of them needs; the third is ours, which
takes TensorFlow's fused kernel where one replica trains alone. One replica trains here. What runs is
`trainer.training.loop.train` with all that the preset has (augmentation, AdamW, averaged weights): the ratio is of whole
training steps, which is what a user waits for.
"""

from pathlib import Path

from testbed.report import argument_parser, machine, print_rates, write_json
from testbed.turns import Case, Turns, measure, train_in_turns
from trainer.config import TrainConfig, resolve

KERAS = "keras, as it comes"
SYNCHRONIZED = "keras, synchronized=True"
OURS = "trainer.training.model.BatchNorm"


def main() -> None:
    """Measure, print the table, write the JSON."""
    args = argument_parser(__doc__, rounds=5, steps=32).parse_args()
    data = str(args.data_dir or "random images of MNIST's size")
    where = machine()
    print(f"{where}\ndata: {data}; {args.rounds} rounds of {args.steps} steps", flush=True)
    # No clean epochs, or the short run would be clean from its start to its end.
    config = resolve("accurate", flags={"strategy": "default", "replicas": 1, "unaugmented_epochs": 0.0})
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
        # The network stays the one of trainer/training/model.py; only the name that it looks up there is another layer.
        trainer.training.model.BatchNorm = keras_layer
    train_in_turns(turns, config, data_dir, steps, rounds)


if __name__ == "__main__":
    main()
