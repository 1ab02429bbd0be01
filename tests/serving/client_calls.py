"""One call of either client, so that one test checks both."""

import asyncio
from typing import Any

from serving.client import AsyncDigitClient, DigitClient
from serving.client.config import ClientConfig


def call_sync(
    target: str,
    method: str,
    *args: Any,
    config: ClientConfig | None = None,
    timeout_seconds: float | None = None,
    **settings: Any,
) -> Any:
    """Create a `DigitClient`, call `method` once, and close it. The timeout goes to the method."""
    options = {} if timeout_seconds is None else {"timeout_seconds": timeout_seconds}
    with DigitClient(target, config, **settings) as client:
        return getattr(client, method)(*args, **options)


def call_async(
    target: str,
    method: str,
    *args: Any,
    config: ClientConfig | None = None,
    timeout_seconds: float | None = None,
    **settings: Any,
) -> Any:
    """Do the same with an `AsyncDigitClient` in an event loop of its own."""
    options = {} if timeout_seconds is None else {"timeout_seconds": timeout_seconds}

    async def call() -> Any:
        async with AsyncDigitClient(target, config, **settings) as client:
            return await getattr(client, method)(*args, **options)

    return asyncio.run(call())
