"""Paths that end in a line break."""

from starlette.types import ASGIApp, Receive, Scope, Send


class LineBreaksMiddleware:
    """Makes sure that a path with a line break at its end (%0A) matches no route.

    Routes are regular expressions that end in `$`, which also matches before the last line break.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and scope["path"].endswith("\n"):
            scope["path"] += "\n"
        await self._app(scope, receive, send)
