import numpy as np
import pytest

from trainer.evaluation.calibrate import RANGE, fit_temperature
from trainer.evaluation.metrics import cross_entropy


def drawn(temperature: float, examples: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from the softmax of the logits divided by `temperature`."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 4, (examples, 10)).astype(np.float32)
    noise = random.gumbel(size=logits.shape)
    return logits, (logits / temperature + noise).argmax(axis=1).astype(np.uint8)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found_again(temperature: float) -> None:
    logits, labels = drawn(temperature)
    fitted = fit_temperature(logits, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert cross_entropy(logits / fitted, labels) <= cross_entropy(logits, labels)


def test_a_network_without_a_mistake_does_not_become_certain_without_bound() -> None:
    logits = np.eye(10, dtype=np.float32)
    assert fit_temperature(logits, np.arange(10)) == pytest.approx(RANGE[0], rel=0.01)
