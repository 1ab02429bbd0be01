"""The learning rate of every step, and the optimizer that follows it."""

import keras
import numpy as np
import tensorflow as tf

from trainer.settings import OptimizerSettings


def learning_rates(
    steps: int, *, highest: float, schedule: str, warmup_fraction: float, final_fraction: float
) -> np.ndarray:
    """Learning rate of each step, float32 [steps]: a linear rise to `highest`, then constant, linear or cosine decay.

    Args:
        steps: length of the run.
        highest: rate at the end of the warm-up.
        schedule: "constant", "linear" or "cosine".
        warmup_fraction: share of the steps that the rise takes.
        final_fraction: rate of the last step as a share of `highest`.
    """
    warmup = round(steps * warmup_fraction)
    rise = np.arange(1, warmup + 1) / max(warmup, 1)
    done = np.arange(steps - warmup) / max(steps - warmup - 1, 1)
    fall = {"constant": np.ones_like(done), "linear": 1 - done, "cosine": (1 + np.cos(np.pi * done)) / 2}[schedule]
    if schedule != "constant":
        fall = final_fraction + (1 - final_fraction) * fall
    return (highest * np.concatenate([rise, fall])).astype(np.float32)


class TableSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that looks the rate up by step: any formula costs one gather, and can be plotted as it is."""

    def __init__(self, rates: np.ndarray):
        self.rates = rates

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.constant(self.rates), tf.minimum(tf.cast(step, tf.int32), len(self.rates) - 1))

    def get_config(self) -> dict:
        return {"rates": self.rates.tolist()}


def build_optimizer(settings: OptimizerSettings, steps: int, *, scale_loss: bool = False) -> keras.Optimizer:
    """Adam or AdamW on the schedule of a run of `steps` steps; `scale_loss` as mixed_float16 needs it."""
    schedule = TableSchedule(
        learning_rates(
            steps,
            highest=settings.learning_rate,
            schedule=settings.schedule,
            warmup_fraction=settings.warmup_fraction,
            final_fraction=settings.final_learning_rate_fraction,
        )
    )
    betas = {"beta_1": settings.beta_1, "beta_2": settings.beta_2}
    if settings.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay, **betas)
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    else:
        optimizer = keras.optimizers.Adam(schedule, **betas)
    return keras.optimizers.LossScaleOptimizer(optimizer) if scale_loss else optimizer
