"""Deadlines and retries: how long a call may take, and when one of its requests is sent again.

A request is sent again in two cases. After UNAVAILABLE, which means that it got no response, the next attempt follows a
pause that grows, varied so that clients do not retry all at once. A frozen replica accepts requests and never responds;
each attempt may therefore take only half of the request's remaining time, and the next one goes to another replica.
Repeating a prediction is safe.

gRPC's own retries cover the first case only. Inside an attempt they would hide the server's message behind a timeout.
"""

from __future__ import annotations

import random
import time

import grpc

from serving.client.config import REQUEST_TIMEOUT_SECONDS

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 0.8
"""Pauses after UNAVAILABLE: each is twice the one before."""


class Deadline:
    """The end of a whole call, or with None no end but a timeout for each of its requests."""

    def __init__(self, timeout_seconds: float | None) -> None:
        self._end = None if timeout_seconds is None else time.monotonic() + timeout_seconds

    def remaining_seconds(self) -> float:
        """Return the time that a request sent now may take, its retries included."""
        return REQUEST_TIMEOUT_SECONDS if self._end is None else max(self._end - time.monotonic(), 0)


class RetryThrottle:
    """Stops the retries of a client while more than a third of many attempts fail: they would keep a full server full.

    The rule is gRPC's (gRFC A6): a retry needs more than half of the tokens.
    """

    MAX_TOKENS, TOKENS_PER_RESPONSE = 1000.0, 0.5

    def __init__(self) -> None:
        self._tokens = self.MAX_TOKENS

    def record_response(self) -> None:
        """Count an attempt with a response, which may be an error that no retry can cure."""
        self._tokens = min(self._tokens + self.TOKENS_PER_RESPONSE, self.MAX_TOKENS)

    def record_failure(self) -> bool:
        """Count an attempt without a response; return whether a retry is allowed."""
        self._tokens = max(self._tokens - 1, 0)
        return self._tokens > self.MAX_TOKENS / 2


class Attempts:
    """The attempts of one request.

    Args:
        seconds: time for all attempts and pauses together.
        max_attempts: 1 for no retries.
        throttle: shared by all requests of a client.
    """

    def __init__(self, seconds: float, max_attempts: int, throttle: RetryThrottle) -> None:
        self._end, self._left, self._throttle = time.monotonic() + seconds, max_attempts, throttle
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def next_timeout_seconds(self) -> float:
        """Start an attempt and return its timeout: half of the remaining time, or all of it for the last attempt."""
        self._start, self._left = time.monotonic(), self._left - 1
        remaining = max(self._end - self._start, 0)
        self._timeout_seconds = remaining / 2 if self._left else remaining
        return self._timeout_seconds

    def succeed(self) -> None:
        """Count the response."""
        self._throttle.record_response()

    def next_pause_seconds(self, error: grpc.RpcError) -> float | None:
        """Return how long to wait before the next attempt, or None if `error` is final."""
        now = time.monotonic()
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            pause, self._pause_seconds = self._pause_seconds, min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
            pause *= random.uniform(0.8, 1.2)
        # The server knows the deadline, too, and its own DEADLINE_EXCEEDED may arrive a moment earlier.
        elif error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and now - self._start >= 0.9 * self._timeout_seconds:
            pause = 0.0
        else:
            self._throttle.record_response()
            return None
        allowed = self._throttle.record_failure()
        return pause if allowed and self._left and now + pause < self._end else None
