"""Limits of the routes that take images: bytes, time, and number of concurrent requests."""

import asyncio
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ErrorCode, MalformedRequestError, OverloadedError, RequestError
from service.web.path_templates import PathTemplates


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits of one request, and of the number of concurrent requests."""

    max_body_bytes: int
    receive_seconds: float
    timeout_seconds: float
    max_concurrent: int


class RequestLimitsMiddleware:
    """Limits some paths; health and metrics are not limited, so that they work during overload."""

    def __init__(self, app: ASGIApp, limits: RequestLimits, guarded: PathTemplates) -> None:
        self._app = app
        self._limits = limits
        self._guarded = guarded
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and self._guarded.match(scope["path"]):
            await self._guard(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_announced_length(scope)
        if self._running >= self._limits.max_concurrent:
            raise OverloadedError("Too many concurrent requests; try again.", retry_after_seconds=1)
        self._running += 1
        deadline = asyncio.timeout(self._limits.timeout_seconds)
        try:
            async with deadline:
                await self._app(scope, self._counting(receive), send)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise RequestError(
                ErrorCode.DEADLINE_EXCEEDED,
                f"No response within {self._limits.timeout_seconds:g} seconds, including the upload; work was dropped.",
            ) from None
        finally:
            self._running -= 1

    def _check_announced_length(self, scope: Scope) -> None:
        announced = Headers(scope=scope).get("content-length")
        if announced is None:
            return
        if not announced.isdecimal():
            raise MalformedRequestError("The Content-Length header is not a number.")
        if int(announced) > self._limits.max_body_bytes:
            raise self._too_large(f"{announced} bytes were announced")

    def _counting(self, receive: Receive) -> Receive:
        """Count and time the body as it arrives, because its Content-Length may be missing or wrong."""
        count, is_whole = 0, False
        until = asyncio.get_running_loop().time() + self._limits.receive_seconds

        async def counting_receive() -> Message:
            nonlocal count, is_whole
            if is_whole:  # only a disconnect can follow, at any time
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise RequestError(
                    ErrorCode.RECEIVE_TIMEOUT,
                    f"The body was incomplete after {self._limits.receive_seconds:g} seconds; {count} bytes arrived.",
                ) from None
            count += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if count > self._limits.max_body_bytes:
                raise self._too_large(f"more than {self._limits.max_body_bytes} bytes arrived")
            return message

        return counting_receive

    def _too_large(self, size: str) -> RequestError:
        return RequestError(
            ErrorCode.BODY_TOO_LARGE, f"The limit of a request body is {self._limits.max_body_bytes} bytes, and {size}."
        )
