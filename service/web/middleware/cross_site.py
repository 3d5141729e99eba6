"""Check that no page of another site sent a request that changes or computes something."""

from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ErrorCode, RequestError

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES: Final = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site: the page of this service, and the person at the browser without a page."""


class CrossSiteMiddleware:
    """Refuses requests that a browser sends for a page of another origin, unless CORS allows the origin.

    CORS alone stops such a page from reading the response, not from sending a form. Programs send neither header.

    Args:
        app: the next layer.
        origins: allowed origins; `*` allows all.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and scope["method"] not in _SAFE_METHODS and self._is_foreign(Headers(scope=scope)):
            raise RequestError(
                ErrorCode.CROSS_SITE,
                "A web page of another origin sent this request; the operator can allow its origin with "
                "COVIDCT_CORS_ORIGINS.",
            )
        await self._app(scope, receive, send)

    def _is_foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if self._origins & {"*", origin}:
            return False
        site = headers.get("sec-fetch-site")  # browsers send it over https and to this machine, and pages can't set it
        if site is not None:
            return site not in _OWN_SITES
        return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()
