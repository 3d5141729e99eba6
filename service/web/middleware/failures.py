"""Responses for errors that no route has handled."""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError
from service.web.problems import problem_response
from service.web.request_id import request_id_of

_log = logging.getLogger("covidct.failures")


class FailuresMiddleware:
    """Turns an error of the inner layers into a problem.

    An unexpected error is logged and becomes status 500. An error after the start of the response is raised again:
    only closing the connection can report it then.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def watching_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watching_send)
        except Exception as error:
            if has_begun:
                raise
            if not isinstance(error, ServiceError):
                _log.exception("unexpected error", extra={"fields": {"request_id": request_id_of(scope)}})
                error = ServiceError()
            scope["covidct.code"] = error.code
            await problem_response(error, request_id_of(scope), scope["path"])(scope, receive, send)
