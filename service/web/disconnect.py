"""Cancellation of the work for a request whose client disconnects."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from fastapi import Request

from service.errors import ErrorCode, RequestError

R = TypeVar("R")


async def cancel_on_disconnect(request: Request, work: Coroutine[None, None, R]) -> R:
    """Await `work`, and cancel it if the client disconnects first.

    Raises:
        RequestError: the client disconnected first.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise RequestError(ErrorCode.CLIENT_GONE, "The client disconnected before its response was ready.")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
