"""The client for TensorFlow Serving: numpy arrays or picture files in, dataclasses out, without TensorFlow.

    client.py -> requests.py -> channel.py -> the server -> responses.py -> results.py

Every failed request is a `ServingError` (errors.py). Next: `serving/commands/`, the command line built on it.
"""

from serving.client.client import AsyncDigitClient, DigitClient
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
