"""Problems of the V2 routes in the form of the protocol."""

import json
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.web.problems import MEDIA_TYPE

_KEPT: Final = ("code", "request_id")


class ProtocolErrorsMiddleware:
    """Converts every problem+json under a prefix to `{"error": ...}`."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or not (scope["path"] + "/").startswith(self._prefix + "/"):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = bytearray()

        async def rewriting_send(message: Message) -> None:
            nonlocal start
            if (
                message["type"] == "http.response.start"
                and Headers(raw=message["headers"]).get("content-type") == MEDIA_TYPE
            ):
                start = message
                return
            if start is None:
                await send(message)
                return
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                await _send_as_error(start, bytes(body), send)

        await self._app(scope, receive, rewriting_send)


async def _send_as_error(start: Message, body: bytes, send: Send) -> None:
    problem = json.loads(body)
    error = json.dumps({"error": problem["detail"]} | {name: problem[name] for name in _KEPT}).encode()
    headers = MutableHeaders(scope=start)
    headers["Content-Type"] = "application/json"
    headers["Content-Length"] = str(len(error))
    await send(start)
    await send({"type": "http.response.body", "body": error})
