"""Limits of the page's server: what slow, many or silent connections may cost, and how much they may log.

uvicorn limits neither the time of a request's headers nor the connections of a peer, so its protocol is extended here.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import time
from collections.abc import Iterable

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.web.middleware import HEADERS

HEADER_SECONDS = 10
"""How long a connection may take to send the headers of its next request."""
REQUEST_SECONDS = 60
"""How long a request may take from its headers to the end of its response, which a peer may read slowly or never."""
MAX_PEER_CONNECTIONS = 64
"""Connections of one address. Users behind one proxy share it; they lose idle connections only."""
MAX_CONNECTIONS = 1024
BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted."""
MAX_ACCEPTS = 128
"""Connections accepted in one turn of the event loop; some turns pass before one beyond the limits is closed."""
GRACE_SECONDS = 10
"""How long pending requests may take to finish after SIGTERM."""
REPEAT_SECONDS = 10
"""A message is logged at most once in this time."""


def build_server(app: ASGIApp) -> PageServer:
    """Build the server of the page, with its limits on connections and on its log."""
    descriptors = _raise_descriptor_limit()
    config = uvicorn.Config(
        app,
        http=LimitedConnection,
        ws="none",  # an upgrade would leave the limits
        limit_concurrency=1 + min(MAX_CONNECTIONS, descriptors // 2),  # uvicorn counts the request's own connection
        backlog=max(1, min(MAX_ACCEPTS, descriptors // 20)),
        log_level="warning",
        access_log=False,
        server_header=False,
        headers=[*HEADERS.items()],
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    for name in ("asyncio", "uvicorn.error", "serving.web.app"):
        logging.getLogger(name).addFilter(RepeatFilter())
    return PageServer(config)


class PageServer(uvicorn.Server):
    """uvicorn's server, with a kernel queue that is longer than asyncio's `backlog`, which also sets `MAX_ACCEPTS`."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)


class LimitedConnection(H11Protocol):
    """A connection with a deadline for what comes next. The one that waits longest is closed when there are too many.

    A connection waits while its request is incomplete; the deadline counts from its begin, whatever trickles in.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for the connection, in its peer's share and in all."""
        super().connection_made(transport)
        self._set_deadline(HEADER_SECONDS)
        assert self.client
        assert self.limit_concurrency
        connections = [one for one in self.connections if isinstance(one, LimitedConnection)]
        peers = [one for one in connections if one.client and one.client[0] == self.client[0]]
        if len(peers) > MAX_PEER_CONNECTIONS:
            self._make_room(peers)
        elif len(connections) >= self.limit_concurrency:
            self._make_room(connections)

    def data_received(self, data: bytes) -> None:
        """Set the deadline of the request when its headers are complete."""
        cycle = self.cycle
        super().data_received(data)
        if self.cycle is not cycle:
            self._set_deadline(REQUEST_SECONDS)

    def on_response_complete(self) -> None:
        """Set the deadline of the next headers, or of the next request if it has been received already."""
        cycle = self.cycle
        self._set_deadline(HEADER_SECONDS)
        super().on_response_complete()
        if self.cycle is not cycle:
            self._set_deadline(REQUEST_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the deadline."""
        super().connection_lost(exc)
        if self._deadline:
            self._deadline.cancel()

    def _set_deadline(self, seconds: float) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._begin = self.loop.time()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _make_room(self, connections: Iterable[LimitedConnection]) -> None:
        oldest = min((one for one in connections if one._is_waiting()), key=lambda one: one._begin)
        if oldest is self:
            self.limit_concurrency = 1  # All others work on requests: uvicorn responds to this one's with 503.
        else:
            self.connections.discard(oldest)  # now, not in the loop's next turn: more may be accepted before
            oldest.transport.abort()

    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body


class RepeatFilter(logging.Filter):
    """Drops a message that was logged less than `REPEAT_SECONDS` ago. Its next record says how many were dropped."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is to be logged."""
        message = str(record.msg).partition("\n")[0]  # before its arguments; asyncio appends the objects concerned
        logged, dropped = self._seen.get(message, (float("-inf"), 0))
        if (now := time.monotonic()) < logged + REPEAT_SECONDS:
            self._seen[message] = logged, dropped + 1
            return False
        if dropped:
            record.msg = f"{record.msg} ({dropped} more since the last such message)"
        self._seen[message] = now, 0
        return True


def _raise_descriptor_limit() -> int:
    """Raise the limit on open files as far as the system allows and is of use, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MAX_CONNECTIONS
    raised = max(soft, wanted if hard == resource.RLIM_INFINITY else min(hard, wanted))
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return raised
