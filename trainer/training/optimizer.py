"""The learning rate of every step, and the optimizer that follows it."""

import keras
import numpy as np
import tensorflow as tf

from trainer.settings import OptimizerSettings

LOSS_SCALE_GROWTH_STEPS = 2000
"""After so many steps without an overflow the scale of the loss is doubled; Keras's default."""


def learning_rates(steps: int, settings: OptimizerSettings) -> np.ndarray:
    """Return the learning rate of each step, float32 [steps]: a linear rise, then constant, linear or cosine decay."""
    warmup = round(steps * settings.warmup_fraction)
    rise = np.arange(1, warmup + 1) / max(warmup, 1)
    done = np.arange(steps - warmup) / max(steps - warmup - 1, 1)
    falls = {"constant": np.ones_like(done), "linear": 1 - done, "cosine": (1 + np.cos(np.pi * done)) / 2}
    fall = falls[settings.schedule]
    if settings.schedule != "constant":
        final = settings.final_learning_rate_fraction
        fall = final + (1 - final) * fall
    return (settings.learning_rate * np.concatenate([rise, fall])).astype(np.float32)


class TableSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that looks the rate up by step: any formula costs one gather, and can be plotted as it is."""

    def __init__(self, rates: np.ndarray):
        self.rates = rates

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.constant(self.rates), tf.minimum(tf.cast(step, tf.int32), len(self.rates) - 1))

    def get_config(self) -> dict:
        return {"rates": self.rates.tolist()}


def build_optimizer(settings: OptimizerSettings, rates: np.ndarray, *, scale_loss: bool = False) -> keras.Optimizer:
    """Return Adam or AdamW with the learning rate of each step; `scale_loss` as mixed_float16 needs it."""
    schedule = TableSchedule(rates)
    betas = {"beta_1": settings.beta_1, "beta_2": settings.beta_2}
    if settings.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay, **betas)
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    else:
        optimizer = keras.optimizers.Adam(schedule, **betas)
    if not scale_loss:
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer, dynamic_growth_steps=LOSS_SCALE_GROWTH_STEPS)
