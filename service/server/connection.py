"""HTTP connections with limits that uvicorn lacks: time to send and to read, and number of connections."""

import asyncio
import logging
import socket
import struct
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast

import h11
from starlette.responses import Response
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.errors import ErrorCode, MalformedRequestError, OverloadedError, RequestError, ServiceError
from service.metrics import Metrics
from service.server.parser import MAX_HEAD_BYTES, Parser, make_h11_linear
from service.settings import Settings
from service.web.app import STUDY_ROUTES
from service.web.problems import problem_response

_SLACK_SECONDS: Final = 2.0
"""Added to the time in which a whole body must arrive."""

_PIECE_BYTES: Final = 16 * 1024
"""Parsed at a time: h11 has no limit for a head that arrives whole, and the event loop reads up to 256 KiB."""

_BODY_PIECE_BYTES: Final = MAX_HEAD_BYTES
"""The same within a body, of which every piece costs 0.1 ms; a head that follows it in the piece is short enough."""

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 seconds: closing the socket drops what the client has not read."""

_log = logging.getLogger("covidct.connection")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of a connection, and the number of connections.

    Attributes:
        header_seconds: from the start of the connection, or the first byte of a request, to the end of its headers.
        unread_seconds: from the moment that the client stops reading a response to its last byte, and from a response
            to the end of a body that its route did not read. Routes that read a body limit its time themselves.
        max_connections: maximum number of open connections.
    """

    header_seconds: float
    unread_seconds: float
    max_connections: int


def connections(settings: Settings, metrics: Metrics) -> type[asyncio.Protocol]:
    """Build the connection class for uvicorn's `http` option."""
    make_h11_linear()
    limits = ConnectionLimits(
        header_seconds=settings.header_timeout_seconds,
        unread_seconds=settings.receive_timeout_seconds + _SLACK_SECONDS,
        max_connections=settings.max_connections,
    )
    return cast(type[asyncio.Protocol], partial(Connection, limits=limits, metrics=metrics))  # uvicorn only calls it


class Connection(H11Protocol):
    """One client's connection.

    uvicorn waits without limit for a request that does not end (slow loris) and for a client that does not read its
    response; here both time out.
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
        self.conn: Parser = Parser()
        self._limits = limits
        self._metrics = metrics
        self._reading = _TimeLimit(self.loop)
        self._writing = _TimeLimit(self.loop)
        self._sends_no_more = False
        self.waits_since = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Start the time limit for the first headers; refuse if too many connections are open."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # so that `pause_writing` and `resume_writing` mean: not empty, empty
        if self._make_room():
            self._time_reading()
        else:
            self._refuse(OverloadedError("Too many connections are open; try again.", retry_after_seconds=1))

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time limits."""
        self._reading.stop()
        self._writing.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data, and start the time limit for the next part of the request."""
        start = 0
        while start < len(data):
            if self.transport.is_closing() or self.conn.their_state is h11.MUST_CLOSE:  # nothing may follow
                return
            end = start + (_BODY_PIECE_BYTES if self.conn.their_state is h11.SEND_BODY else _PIECE_BYTES)
            super().data_received(data[start:end])
            start = end
        self._time_reading()

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn's always closes the connection
        """Keep the connection for the response to a complete request: the client may have closed its sending side only.

        A study takes minutes, which are not spent for a client that has probably disconnected: its connection closes.

        Returns:
            Whether the connection stays open. A client that has disconnected is noticed when the response is sent.
        """
        self._sends_no_more = True
        cycle = self._cycle
        if cycle is None or cycle.response_complete or cycle.more_body:
            return False
        return STUDY_ROUTES.match(cycle.scope["path"]) is None

    def on_response_complete(self) -> None:
        """Start the next request, or wait for it."""
        self.waits_since = self.loop.time()
        super().on_response_complete()
        if self._sends_no_more and self.cycle.response_complete:
            self.transport.close()
        self._time_reading()

    def pause_writing(self) -> None:
        """Start the time limit for a client that does not read its response."""
        super().pause_writing()
        self.waits_since = self.loop.time()
        self._writing.start("response", self._limits.unread_seconds, self._abort)

    def resume_writing(self) -> None:
        """Stop this time limit: the client has read everything."""
        super().resume_writing()
        self._writing.stop()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's text says less than h11's
        """Answer malformed HTTP with the usual problem document."""
        error = sys.exception()
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == HTTPStatus(431):
            detail = f"Line and headers, and trailers, may have {MAX_HEAD_BYTES} bytes."
            self._refuse(RequestError(ErrorCode.HEADERS_TOO_LARGE, detail))
        else:
            reason = str(error).partition(": bytearray(")[0]  # without the bytes that the client sent
            self._refuse(MalformedRequestError(f"The request is not valid HTTP/1.1: {reason}."))

    @property
    def awaits_client(self) -> bool:
        """Whether the connection waits for its client to send or read; a request being received counts as work."""
        return self._cycle is None or self._cycle.response_complete or self.flow.write_paused

    def give_way(self) -> None:
        """Close the connection, because another one needs its place."""
        if self.flow.write_paused:
            self._abort()
        else:
            self.transport.close()

    @property
    def _cycle(self) -> RequestResponseCycle | None:
        return cast("RequestResponseCycle | None", self.cycle)  # None before the first request, whatever its type

    def _should_upgrade(self) -> bool:
        """Ignore offers to upgrade (RFC 9110, 7.8); uvicorn would log two warnings for each."""
        return False

    def _make_room(self) -> bool:
        """Close the connection that waits longest for its client if too many are open; return False if none waits."""
        others = cast("set[Connection]", self.connections) - {self}
        others = {other for other in others if not other.transport.is_closing()}
        if len(others) < self._limits.max_connections:
            return True
        waiting = [other for other in others if other.awaits_client]
        if waiting:
            min(waiting, key=lambda other: other.waits_since).give_way()
        return bool(waiting)

    def _time_reading(self) -> None:
        """Start the time limit of a head, or of a body after its response, when it begins; stop it when it ends."""
        if self.transport.is_closing():
            return
        state, requests = self.conn.their_state, self.conn.requests
        if state is h11.IDLE and (requests == 0 or self.conn.trailing_data[0]):  # a later head when it has begun
            self._reading.start(("head", requests), self._limits.header_seconds, self._head_is_late)
        elif state is h11.SEND_BODY and self.cycle.response_complete:
            self._reading.start(("body", requests), self._limits.unread_seconds, self._abort)
        else:
            self._reading.stop()

    def _head_is_late(self) -> None:
        if self.conn.trailing_data[0]:
            detail = f"The headers were incomplete after {self._limits.header_seconds:g} seconds."
            self._refuse(RequestError(ErrorCode.RECEIVE_TIMEOUT, detail))
        else:  # no request has started: nobody waits for an answer
            self.transport.close()

    def _refuse(self, error: ServiceError) -> None:
        """Send a response without the application, and close the connection."""
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:  # the answer has started
            self._abort()
            return
        self._drop_request()
        request_id = uuid.uuid4().hex
        self._send(problem_response(error, request_id))
        self.transport.close()
        seconds = self.loop.time() - self._reading.began  # of its head: no response is sent here after another one
        self._metrics.observe_request("unmatched", "other", error.status, seconds)
        fields = {"request_id": request_id, "status": error.status, "code": error.code, "seconds": round(seconds, 6)}
        _log.info("connection refused", extra={"fields": fields})

    def _drop_request(self) -> None:
        """Make the application drop the request that it is reading, if any."""
        cycle = self._cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def _send(self, response: Response) -> None:
        response.headers["Connection"] = "close"
        status = HTTPStatus(response.status_code)
        head = h11.Response(status_code=status, headers=response.raw_headers, reason=status.phrase)
        events = (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage())
        self.transport.write(b"".join([self.conn.send(event) for event in events]))

    def _abort(self) -> None:
        """Reset the connection."""
        connection = cast(socket.socket, self.transport.get_extra_info("socket"))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


class _TimeLimit:
    """A time limit of one thing after another.

    Attributes:
        began: loop time of the last start.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.began = loop.time()
        self._loop = loop
        self._of: object = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, of: object, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` after so many seconds; if the limit of the same thing is running, it continues."""
        if of != self._of:
            self.stop()
            self.began, self._of, self._timer = self._loop.time(), of, self._loop.call_later(seconds, act)

    def stop(self) -> None:
        self._of = None
        if self._timer is not None:
            self._timer.cancel()
