"""The weights that `--init-from` names: those of a trained run, or of a published version.

In: a name, a number or a folder. Out: a model with these weights. Next: `trainer/training/`, which trains it further,
with a new optimizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config import TrainConfig, resolve
from trainer.errors import ConfigError
from trainer.runs.folder import CONFIG_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    import keras
    import numpy as np

SAVED_MODEL_FILE = "saved_model.pb"


def read_initial_model(config: TrainConfig) -> keras.Model:
    """Build the config's network with the weights that `config.init_from` names.

    Returns:
        A plain float32 model outside any strategy.

    Raises:
        ConfigError: there is no such run or version, it has no weights, or they are those of another network.
    """
    from trainer.training.model import build_model

    folder = _find(config)
    weights = _weights_of_run(folder) if (folder / CONFIG_FILE).is_file() else _weights_of_version(folder)
    model = build_model(config.model, width=config.width, dropout=config.dropout)
    try:
        model.set_weights(weights)
    except ValueError as error:
        trained, expected = sum(array.size for array in weights), model.count_params()
        raise ConfigError(
            f"init_from is {config.init_from}: its network has {trained:,} parameters in {len(weights)} arrays, but that "
            f"of --model {config.model} --width {config.width:g} has {expected:,} in {len(model.weights)}; give the "
            "--model and the --width that it was trained with, or its --preset"
        ) from error
    return model


def _find(config: TrainConfig) -> Path:
    """Return the folder of the run or the version."""
    name = config.init_from
    places = [Path(name), config.artifacts / "runs" / name, config.model_dir / name]
    for folder in places:
        if (folder / CONFIG_FILE).is_file() or (folder / SAVED_MODEL_FILE).is_file():
            return folder
    raise ConfigError(
        f"init_from is {name!r}: neither a run nor a published version; searched for {', '.join(map(str, places))}"
    )


def _weights_of_run(folder: Path) -> list[np.ndarray]:
    from trainer.training.model import load_model

    if not (folder / WEIGHTS_FILE).is_file():
        raise ConfigError(f"init_from: the run {folder} was not trained to its end ({WEIGHTS_FILE} is missing)")
    return load_model(resolve(file=folder / CONFIG_FILE), folder / WEIGHTS_FILE).get_weights()


def _weights_of_version(folder: Path) -> list[np.ndarray]:
    from trainer.publishing.export import read_weights

    return read_weights(folder)
