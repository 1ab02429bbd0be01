"""A plain HTTP client for the REST tests: not our client, so that the API is tested as others use it."""

import http.client
import json
from typing import Any

from serving import contract

TIMEOUT_SECONDS = 60


class Rest:
    """REST requests to `address` (host:port), on one connection per request."""

    def __init__(self, address: str):
        self.address = address

    def get(self, path: str) -> tuple[int, Any]:
        """Return the status and the body, parsed if it is JSON."""
        return self.request("GET", path)

    def post(self, path: str, document: Any) -> tuple[int, Any]:
        """Post a JSON document, or bytes as they are."""
        return self.request("POST", path, document if isinstance(document, bytes) else json.dumps(document).encode())

    def predict(self, document: Any, *, model: str = contract.MODEL_NAME, select: str = "") -> tuple[int, Any]:
        """Post a Predict request; `select` is "", "/versions/N" or "/labels/L"."""
        return self.post(f"/v1/models/{model}{select}:predict", document)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Return the status and the body, parsed if it is JSON."""
        connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read()
            if response.getheader("Content-Type") == "application/json":
                return response.status, json.loads(content) if content else None
            return response.status, content.decode()
        finally:
            connection.close()
