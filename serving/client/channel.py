"""The gRPC channel of a client: TLS, load balancing, message sizes, and the stubs of the methods."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import grpc

import serving.client.wire_pb2 as wire
from serving.client.config import MAX_MESSAGE_BYTES, ClientConfig, Tls
from serving.contract import MAX_PICTURE_BYTES

SERVICE_CONFIG: dict[str, Any] = {
    "loadBalancingConfig": [
        {
            "outlier_detection_experimental": {
                "interval": "0.5s",
                "baseEjectionTime": "10s",
                "maxEjectionTime": "300s",
                # One replica of up to ten: if all fail for a moment, the others stay.
                "maxEjectionPercent": 10,
                # The defaults need 5 replicas and 50 requests to each in an interval. Replicas that are down do not count.
                "failurePercentageEjection": {"threshold": 80, "minimumHosts": 2, "requestVolume": 2},
                "childPolicy": [{"round_robin": {}}],
            }
        }
    ]
}
"""gRPC's service config: replicas take turns (gRFC A2), except those that fail (gRFC A50).

A replica that accepts requests and never responds (a frozen process, a network that drops packets) would otherwise cost
its share of requests for as long as it lasts, because its connection looks fine. Outlier detection removes a replica most
of whose requests failed in an interval, and tries it again after a growing pause.
"""

LARGEST_REQUEST_BYTES = MAX_PICTURE_BYTES + 4096
"""One picture of the largest size, and the names around it."""


def open_channel(module: Any, target: str, config: ClientConfig) -> Any:
    """Open a channel.

    Args:
        module: `grpc` or `grpc.aio`.
        target: see target.py.
        config: TLS or other credentials.

    Raises:
        OSError: if a certificate file cannot be read.
        ValueError: if a certificate file is not PEM.
    """
    credentials = config.channel_credentials or (config.tls and tls_credentials(config.tls))
    if credentials is None:
        return module.insecure_channel(target, channel_options(config))
    return module.secure_channel(target, credentials, channel_options(config))


def tls_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Return the channel credentials of `tls`; raise as `open_channel` does."""
    ca = _read_pem(tls.ca_file, b"CERTIFICATE")
    key, certificate = _read_pem(tls.key_file, b"KEY"), _read_pem(tls.certificate_file, b"CERTIFICATE")
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _read_pem(path: Path | None, kind: bytes) -> bytes | None:
    # gRPC reports a wrong file only when it connects, as a server that is unavailable.
    if path is None:
        return None
    content = Path(path).read_bytes()
    if not re.search(rb"-----BEGIN [A-Z ]*" + kind + rb"-----", content):
        raise ValueError(f"{path} is not a PEM file with a {kind.decode()}")
    return content


def channel_options(config: ClientConfig) -> list[tuple[str, Any]]:
    """Return gRPC's channel arguments, for a channel of grpc or of grpc.aio."""
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.service_config_disable_resolution", 1),  # a TXT record in DNS must not replace ours
        ("grpc.max_send_message_length", LARGEST_REQUEST_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # By default gRPC reconnects to a replica that was down only after up to 120 s, and resolves DNS every 30 s.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.dns_min_time_between_resolutions_ms", 5000),
    ]
    if config.tls is not None and config.tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", config.tls.server_name))
    return options


class Stubs:
    """The server's methods that the client calls, bound by path to a channel of grpc or of grpc.aio."""

    def __init__(self, channel: Any) -> None:
        prediction, model = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
        # Responses stay bytes: responses.py decodes them, because grpc.aio swallows the errors of a deserializer.
        self.predict = channel.unary_unary(prediction + "Predict", wire.PredictRequest.SerializeToString)
        self.metadata = channel.unary_unary(
            prediction + "GetModelMetadata", wire.GetModelMetadataRequest.SerializeToString
        )
        self.status = channel.unary_unary(model + "GetModelStatus", wire.GetModelStatusRequest.SerializeToString)
