"""The gRPC channel of a client: address, TLS, retries, load balancing, message sizes, and the stubs of the methods.

Targets:
    localhost:8500                        one server, or a name whose addresses take turns
    dns:///digits.default.svc:8500        the pods behind a headless Kubernetes service, resolved again as they change
    ipv4:///10.0.0.5:8500,10.0.0.6:8500   replicas by address
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc

import serving.client.wire_pb2 as wire
from serving.client.config import MAX_MESSAGE_BYTES, ClientConfig, Tls
from serving.contract import MAX_PICTURE_BYTES

LARGEST_REQUEST_BYTES = MAX_PICTURE_BYTES + 4096
"""One picture of the largest size, and the names around it."""


def check_target(target: str) -> str:
    """Returns `target`, or raises a ValueError for the URLs that people paste instead of one."""
    if not target or target.startswith(("http:", "https:", "grpc:")):
        raise ValueError(f"target must be HOST:PORT or one of gRPC's names such as dns:///HOST:PORT, not {target!r}")
    return target


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Returns the channel credentials of `tls`.

    Raises:
        OSError: if a file cannot be read.
    """
    ca, key, certificate = (
        None if path is None else Path(path).read_bytes() for path in (tls.ca_file, tls.key_file, tls.certificate_file)
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)


def channel_options(config: ClientConfig) -> list[tuple[str, Any]]:
    """Returns gRPC's channel arguments, for a channel of grpc or of grpc.aio."""
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", json.dumps(service_config(config.max_attempts))),
        ("grpc.service_config_disable_resolution", 1),  # a TXT record in DNS must not replace ours
        ("grpc.max_send_message_length", LARGEST_REQUEST_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # A request larger than this buffer is never retried. The default, 256 KiB, is about 330 images.
        ("grpc.per_rpc_retry_buffer_size", LARGEST_REQUEST_BYTES),
        # By default gRPC reconnects to a replica that was down only after up to 120 s, and resolves DNS every 30 s.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.dns_min_time_between_resolutions_ms", 5000),
    ]
    if config.tls is not None and config.tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", config.tls.server_name))
    return options


def service_config(max_attempts: int) -> dict[str, Any]:
    """Returns gRPC's service config (gRFC A2, A6): replicas take turns, and UNAVAILABLE is retried.

    Only UNAVAILABLE is retried: it means that the request got no response, and repeating a prediction is safe. The waits
    grow from 0.1 s to 0.8 s, each varied by gRPC so that clients do not retry all at once. The throttle stops retries
    while more than a third of many attempts fail, because retries would keep a full server full.
    """
    methods = [{"service": "tensorflow.serving.PredictionService"}, {"service": "tensorflow.serving.ModelService"}]
    retry = {
        "maxAttempts": max_attempts,
        "initialBackoff": "0.1s",
        "maxBackoff": "0.8s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if max_attempts > 1:  # gRPC rejects a retry policy of a single attempt
        config["methodConfig"] = [{"name": methods, "retryPolicy": retry}]
        config["retryThrottling"] = {"maxTokens": 1000, "tokenRatio": 0.5}
    return config


class Stubs:
    """The server's methods that the client calls, bound by path to a channel of grpc or of grpc.aio."""

    def __init__(self, channel: Any) -> None:
        prediction, model = "/tensorflow.serving.PredictionService/", "/tensorflow.serving.ModelService/"
        self.predict = _bind(channel, prediction + "Predict", wire.PredictRequest, wire.PredictResponse)
        self.metadata = _bind(
            channel, prediction + "GetModelMetadata", wire.GetModelMetadataRequest, wire.GetModelMetadataResponse
        )
        self.status = _bind(channel, model + "GetModelStatus", wire.GetModelStatusRequest, wire.GetModelStatusResponse)


def _bind(channel: Any, path: str, request: Any, response: Any) -> Any:
    return channel.unary_unary(path, request.SerializeToString, response.FromString)
