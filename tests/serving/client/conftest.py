"""Both clients, for tests of behaviour that they share."""

import pytest

from tests.serving.client_calls import call_async, call_sync


@pytest.fixture(params=[call_sync, call_async], ids=["DigitClient", "AsyncDigitClient"])
def call(request):
    """A function `call(target, method, *args, config=..., **options)` that uses a client once."""
    return request.param
