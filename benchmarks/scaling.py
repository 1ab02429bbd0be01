"""What data-parallel training would give on many GPUs: arithmetic from assumptions, and the input rate as measured here.

    $ python -m benchmarks.scaling --data-dir mnist/

prints the machine, the assumptions, the input pipeline's images/s on this host without a model, and

                                  compute  all-reduce   step    images/s  efficiency   epoch   input per host
    fixed global batch  1 GPU      ... ms      ... ms  ... ms         ...       ... %   ... s    ... images/s
                        8 GPUs     ...

and so on for 64 GPUs, and for a batch that grows with the GPUs. No GPU is used: the rows are arithmetic, not measurements.

    compute     a launch overhead per step, and the step's operations (benchmarks/roofline.py) at the sustained rate
    all-reduce  2 (n - 1) / n times the gradients' bytes (float32) over the slowest link, and one latency per hop of a
                ring; not overlapped with the backward pass, so it is an upper bound
    efficiency  images/s per GPU, relative to one GPU with the whole batch
    input       what one host must feed; all GPUs of a host share it
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.roofline import training_flop
from percent import percent
from testbed.report import machine, write_json
from testbed.turns import training_split
from trainer.config import TrainConfig, resolve
from trainer.presets import PRESETS

INPUT_AIM = 1e6
"""Images a second that one host should feed."""


@dataclass(frozen=True)
class Cluster:
    """What the calculation assumes."""

    tflops: float
    launch_ms: float
    gpus_per_host: int
    gbytes_in_host: float
    gbytes_between_hosts: float
    latency_us: float


def main() -> None:
    """Print the assumptions, the input rate and the table; write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="frontier", help="(default: %(default)s)")
    parser.add_argument("--data-dir", type=Path, help="folder of IDX files (default: random images of MNIST's size)")
    parser.add_argument("--tflops", type=float, default=100.0, help="sustained per GPU (default: %(default)s)")
    parser.add_argument(
        "--launch-ms", type=float, default=1.0, help="per step, whatever the batch (default: %(default)s)"
    )
    parser.add_argument("--gpus-per-host", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--gbytes-in-host", type=float, default=200.0, help="GB/s between GPUs (default: %(default)s)")
    parser.add_argument("--gbytes-between-hosts", type=float, default=12.5, help="GB/s (default: %(default)s)")
    parser.add_argument("--latency-us", type=float, default=10.0, help="per hop (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    flags = vars(parser.parse_args())
    preset, data_dir, file = flags.pop("preset"), flags.pop("data_dir"), flags.pop("json")
    cluster = Cluster(**flags)
    config = resolve(preset)
    where = machine()
    print(f"{where}\nassumed: {cluster}", flush=True)

    from trainer.training.model import build_model

    model = build_model(config.model, width=config.width, dropout=config.dropout)
    flop, gradient_bytes = (
        training_flop(model),
        4 * sum(weight.shape.num_elements() for weight in model.trainable_weights),
    )
    rate = input_rate(config, data_dir)
    print(
        f"{preset}: {flop / 1e6:,.0f} MFLOP per image, {gradient_bytes / 1e6:.1f} MB of gradients, "
        f"global batch {config.global_batch_size}\n"
        f"input on this host: {rate:,.0f} images/s ({'reaches' if rate >= INPUT_AIM else 'MISSES'} {INPUT_AIM:,.0f})\n\n"
        f"{'':33}compute  all-reduce     step    images/s  efficiency    epoch   input per host"
    )
    rows = []
    for name, grows in (("fixed global batch", False), ("batch grows with the GPUs", True)):
        for gpus in (1, 8, 64):
            batch = config.global_batch_size * (gpus if grows else 1)
            row = {"batch": batch, "gpus": gpus, **step(cluster, gpus, batch, flop, gradient_bytes)}
            row["efficiency"] = row["images_per_second"] / gpus / rows[0]["images_per_second"] if rows else 1.0
            rows.append(row)
            print(
                f"{name if gpus == 1 else '':25}  {gpus:2} GPU{'s' if gpus > 1 else ' '} {1e3 * row['compute']:5.2f} ms  "
                f"{1e3 * row['all_reduce']:7.2f} ms  {1e3 * row['step']:5.2f} ms  {row['images_per_second']:10,.0f}  "
                f"{percent(row['efficiency'], 0):>10}  {60_000 / row['images_per_second']:5.2f} s  "
                f"{row['images_per_second'] / max(1, gpus // cluster.gpus_per_host):6,.0f} images/s"
            )
    write_json(file, machine=where, cluster=vars(cluster), input_images_per_second=rate, rows=rows)


def step(cluster: Cluster, gpus: int, batch: int, flop: float, gradient_bytes: float) -> dict[str, float]:
    """Seconds of a step and of its parts, and images a second of all GPUs."""
    compute = cluster.launch_ms / 1e3 + flop * batch / gpus / (cluster.tflops * 1e12)
    link = cluster.gbytes_in_host if gpus <= cluster.gpus_per_host else cluster.gbytes_between_hosts
    hops = 2 * (gpus - 1)
    all_reduce = hops / gpus * gradient_bytes / (link * 1e9) + hops * cluster.latency_us / 1e6
    seconds = compute + all_reduce
    return {"compute": compute, "all_reduce": all_reduce, "step": seconds, "images_per_second": batch / seconds}


def input_rate(config: TrainConfig, data_dir: Path | None, steps: int = 2000) -> float:
    """Images a second that the input pipeline yields to a loop that does nothing with them."""
    import tensorflow as tf

    from trainer.training.input_pipeline import ReplicaSlice, replica_datasets

    part = ReplicaSlice(config.seed, config.global_batch_size, 0, 1)
    [dataset] = replica_datasets(training_split(data_dir), range(steps + 100), [part], ["CPU:0"])
    batches = iter(dataset)

    @tf.function
    def take(count: tf.Tensor) -> tf.Tensor:
        total = tf.constant(0, tf.int64)
        for _ in tf.range(count):
            number, _, _ = next(batches)
            total += number
        return total

    take(tf.constant(100)).numpy()  # compiles
    started = time.perf_counter()
    take(tf.constant(steps)).numpy()
    return steps * config.global_batch_size / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
