"""Check of the Host header."""

import re
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import UnknownHostError
from service.settings import Settings, comma_separated, is_loopback

_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


class HostCheckMiddleware:
    """Answers only requests for known names.

    Otherwise a web page of another site whose name resolves to this address (DNS rebinding) could read the answers.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        names = comma_separated(settings.allowed_hosts) or (_LOOPBACK_NAMES if is_loopback(settings.host) else ())
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and self._names:
            name = Headers(scope=scope).get("host", "")
            if _without_port(name).lower() not in self._names:
                raise UnknownHostError(
                    "This service does not answer to the name in the Host header; its operator can allow it with "
                    "COVIDCT_ALLOWED_HOSTS."
                )
        await self._app(scope, receive, send)


def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host)
