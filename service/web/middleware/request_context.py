"""Outermost middleware: a request id, a log line and a metric for each request."""

import logging
import re
import time
import uuid
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics
from service.web.path_templates import PathTemplates
from service.web.request_id import REQUEST_ID_HEADER, request_id_of

_ACCEPTED_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Ids accepted from clients; other characters could forge log lines or headers."""

_log = logging.getLogger("covidct.request")


class RequestContextMiddleware:
    """Gives each request an id, counts it and logs it, without body and file name.

    Args:
        app: the next layer.
        metrics: for the counts.
        image_routes: routes that take images, matched before routing.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, image_routes: PathTemplates) -> None:
        self._app = app
        self._metrics = metrics
        self._image_routes = image_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        inbound = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        scope["covidct.request_id"] = inbound if _ACCEPTED_ID.fullmatch(inbound) else uuid.uuid4().hex
        status, received = 499, 0  # nginx' status for a client that disconnected

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def stamping_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id_of(scope)
            await send(message)

        try:
            await self._app(scope, counting_receive, stamping_send)
        except Exception:
            status = 500  # also if the response had started: the client does not get all of it
            raise
        finally:
            seconds = time.perf_counter() - started
            route = self._route_of(scope)
            self._metrics.observe_request(route, scope["method"], status, seconds)
            _log.info("request", extra={"fields": _fields(scope, route, status, received, seconds)})

    def _route_of(self, scope: Scope) -> str:
        """Return the route's template, or `unmatched`, because a client must not create metric labels."""
        routed = getattr(scope.get("route"), "path", None)  # none if the request was refused before routing
        return str(routed or self._image_routes.match(scope["path"]) or "unmatched")


def _fields(scope: Scope, route: str, status: int, received: int, seconds: float) -> dict[str, Any]:
    return {
        "request_id": request_id_of(scope),
        "method": scope["method"],
        "route": route,
        "status": status,
        "code": scope.get("covidct.code"),
        "bytes": received,
        "seconds": round(seconds, 6),
    }
