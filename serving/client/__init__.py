"""The client for TensorFlow Serving: numpy arrays or picture files in, dataclasses out, without TensorFlow.

    client.py or async_client.py -> requests.py -> channel.py -> the server -> responses.py -> results.py

Every failed request raises a `ServingError` (errors.py). Next: `serving/commands/`, the command line built on it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.client.async_client import AsyncDigitClient
    from serving.client.client import DigitClient
    from serving.client.config import ClientConfig, Tls
    from serving.client.errors import ServingError
    from serving.client.results import PicturePrediction, PicturePredictions, Prediction, Predictions

__all__ = [
    "AsyncDigitClient",
    "ClientConfig",
    "DigitClient",
    "PicturePrediction",
    "PicturePredictions",
    "Prediction",
    "Predictions",
    "ServingError",
    "Tls",
]

_MODULES = {"ClientConfig": "config", "Tls": "config", "ServingError": "errors", "AsyncDigitClient": "async_client"}
_MODULES |= {"DigitClient": "client"} | {name: "results" for name in __all__ if "Prediction" in name}


def __getattr__(name: str) -> Any:
    # Imported on first use: the command line imports `serving.client.config` and must not load gRPC for --help.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
