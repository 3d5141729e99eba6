"""Check of the Host header."""

import re
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ErrorCode, RequestError
from service.settings import Settings, comma_separated, is_loopback

_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


class HostCheckMiddleware:
    """Accepts only requests for known Host names.

    Otherwise a web page of another site whose name resolves to this address (DNS rebinding) could read the responses. A
    request without a Host header is accepted: it is HTTP/1.0, which no browser sends.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        names = comma_separated(settings.allowed_hosts)
        if not names and is_loopback(settings.host):
            names = (*_LOOPBACK_NAMES, settings.host.lower())
        self._names = frozenset(name.removesuffix(".") for name in names)
        self._suffixes = tuple(name.removeprefix("*") for name in self._names if name.startswith("*."))
        self._accepts_any = not names or "*" in names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and not self._accepts_any:
            host = Headers(scope=scope).get("host")
            if host is not None and not self._accepts(host.lower()):
                raise RequestError(
                    ErrorCode.UNKNOWN_HOST,
                    "The name in the Host header is not accepted here; its operator can allow it with "
                    "COVIDCT_ALLOWED_HOSTS.",
                )
        await self._app(scope, receive, send)

    def _accepts(self, host: str) -> bool:
        name = re.sub(r":\d*\Z", "", host).removesuffix(".")
        return host in self._names or name in self._names or (bool(self._suffixes) and name.endswith(self._suffixes))
