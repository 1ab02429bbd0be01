"""One call of either client, so that one test checks both."""

import asyncio
from typing import Any

from serving.client import AsyncDigitClient, DigitClient
from serving.client.config import ClientConfig


def call_sync(target: str, method: str, *args: Any, config: ClientConfig | None = None, **options: Any) -> Any:
    """Creates a `DigitClient`, calls `method` once, and closes it."""
    with DigitClient(target, config) as client:
        return getattr(client, method)(*args, **options)


def call_async(target: str, method: str, *args: Any, config: ClientConfig | None = None, **options: Any) -> Any:
    """Does the same with an `AsyncDigitClient` in an event loop of its own."""

    async def call() -> Any:
        async with AsyncDigitClient(target, config) as client:
            return await getattr(client, method)(*args, **options)

    return asyncio.run(call())
