"""HTTP connection with limits that uvicorn lacks: header time, header size, number of connections."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.errors import (
    HeadersTooLargeError,
    MalformedRequestError,
    OverloadedError,
    ReceiveTimeoutError,
    ServiceError,
)
from service.metrics import Metrics
from service.server.upgrade_offers import UpgradeOffers
from service.settings import Settings
from service.web.problems import problem_response

_MAX_HEAD_BYTES: Final = 64 * 1024
"""For request line and headers together. Browsers and proxies stop at a quarter of it; the parser has no limit."""

_SLACK_SECONDS: Final = 2.0
"""Added to the application's own limits."""

_log = logging.getLogger("covidct.connection")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of a connection, and the number of connections.

    Attributes:
        header_seconds: from the start of the connection, or the first byte of a request, to the end of its headers.
        body_seconds: from there to the end of the body.
        max_connections: maximum number of open connections.
    """

    header_seconds: float
    body_seconds: float
    max_connections: int


def connections(settings: Settings, metrics: Metrics) -> type[asyncio.Protocol]:
    """Build the connection class for uvicorn's `http` option."""
    limits = ConnectionLimits(
        header_seconds=settings.header_timeout_seconds,
        body_seconds=settings.receive_timeout_seconds + _SLACK_SECONDS,
        max_connections=settings.max_connections,
    )
    return cast(type[asyncio.Protocol], partial(Connection, limits=limits, metrics=metrics))  # uvicorn only calls it


class Connection(HttpToolsProtocol):
    """One client's connection.

    uvicorn waits without limit for a request that does not end (slow loris) and for a client that does not read; here
    both have a time limit.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
        metrics: Metrics,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._metrics = metrics
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True
        self._has_ended = False
        self._offers = UpgradeOffers(self._parse, lambda: self._in_head)
        self._since = time.perf_counter()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Start the time limit for the first headers; refuse if too many connections are open."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            self._refuse(OverloadedError("Too many connections are open; try again.", retry_after_seconds=1))
            return
        self._arm(self._limits.header_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data, and refuse headers that are too large."""
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            self._begin_head()
        self._offers.receive(data)
        if self._in_head and self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HeadersTooLargeError(f"A request's line and headers may have {_MAX_HEAD_BYTES} bytes."))

    def _parse(self, data: bytes) -> None:
        if data and not self.transport.is_closing():
            super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn's always closes the connection
        """Keep the connection for the answer to a whole request: the client may have closed its sending side only.

        Returns:
            Whether the connection stays open. A client that leaves then is noticed when the answer is sent.
        """
        self._has_ended = True
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def on_message_begin(self) -> None:
        """Start the time limit for the headers of the next request."""
        self._begin_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hand the request to the application, and start the time limit for the body."""
        self._in_head = False
        self._head_bytes = 0
        self._arm(self._limits.body_seconds, self._abort)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop the time limit: the request is complete."""
        self._disarm()
        self._in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start a time limit for a client that does not read its answer."""
        super().on_response_complete()
        if self._has_ended and self.cycle.response_complete and not self.transport.is_closing():
            self.transport.close()
        if self.transport.get_write_buffer_size():
            self._arm(self._limits.body_seconds, self._abort)

    def send_400_response(self, msg: str) -> None:
        """Answer malformed HTTP with the usual problem document."""
        self._refuse(MalformedRequestError(f"The request is not valid HTTP/1.1. {msg}"))

    def _begin_head(self) -> None:
        if self._timer is None:  # the first byte after an answer: the keep-alive time has ended
            self._since = time.perf_counter()
            self._head_bytes = max(1, self._head_bytes)
            self._arm(self._limits.header_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        if not self._head_bytes:  # no request has started: nobody waits for an answer
            self._abort()
            return
        self._refuse(ReceiveTimeoutError(f"The headers were not whole after {self._limits.header_seconds:g} seconds."))

    def _refuse(self, error: ServiceError) -> None:
        """Answer without the application, and close the connection."""
        if not self._end_the_request():  # the answer has started, so no other can be written
            self._abort()
            return
        request_id = uuid.uuid4().hex
        response = problem_response(error, request_id)
        response.headers["Connection"] = "close"
        head = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
        self.transport.write(STATUS_LINE[error.status] + head + b"\r\n" + bytes(response.body))
        self.transport.close()
        self._arm(_SLACK_SECONDS, self._abort)
        seconds = time.perf_counter() - self._since
        self._metrics.observe_request("unmatched", "other", error.status, seconds)
        fields = {"request_id": request_id, "status": error.status, "code": error.code, "seconds": round(seconds, 6)}
        _log.info("connection refused", extra={"fields": fields})

    def _end_the_request(self) -> bool:
        """Make the application drop its request; return False if its answer has started."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request, whatever its type
        if cycle is None or cycle.response_complete:
            return True
        if cycle.response_started or self.pipeline:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return True

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, then)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _abort(self) -> None:
        self._timer = None
        self.transport.abort()
