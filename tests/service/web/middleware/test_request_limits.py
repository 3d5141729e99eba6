import asyncio
import json
from collections.abc import AsyncIterator

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from service.metrics import Metrics
from service.web.middleware.failures import FailuresMiddleware
from service.web.middleware.request_context import RequestContextMiddleware
from service.web.middleware.request_limits import RequestLimits, RequestLimitsMiddleware
from service.web.path_templates import PathTemplates

pytestmark = pytest.mark.anyio


class Gate:
    """A route that reads the body, says that it is there, and waits to be let through."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, request: Request) -> PlainTextResponse:
        body = await request.body()
        self.entered.set()
        await self.opened.wait()
        return PlainTextResponse(str(len(body)))


def make(gate: Gate, **limits: float) -> httpx2.AsyncClient:
    async def guarded(request: Request) -> PlainTextResponse:
        return await gate(request)

    async def free(_: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/guarded", guarded, methods=["POST"]), Route("/metrics", free)])
    values = {"max_body_bytes": 1000, "receive_seconds": 20.0, "timeout_seconds": 30.0, "max_concurrent": 10} | limits
    app.add_middleware(RequestLimitsMiddleware, limits=RequestLimits(**values), guarded=PathTemplates("/guarded"))  # type: ignore[arg-type]
    app.add_middleware(FailuresMiddleware)
    app.add_middleware(RequestContextMiddleware, metrics=Metrics(), image_routes=PathTemplates("/guarded"))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost")


def problem(response: httpx2.Response) -> tuple[int, str]:
    assert response.headers["Content-Type"] == "application/problem+json"
    return response.status_code, json.loads(response.text)["code"]


async def test_a_body_within_the_limit_passes() -> None:
    gate = Gate()
    gate.opened.set()
    async with make(gate) as client:
        assert (await client.post("/guarded", content=b"x" * 1000)).text == "1000"


async def test_an_announced_body_over_the_limit_is_answered_before_it_is_read() -> None:
    gate = Gate()
    async with make(gate) as client:
        response = await client.post("/guarded", content=b"x" * 1001)
    assert problem(response) == (413, "body_too_large")
    assert response.headers["Connection"] == "close"
    assert not gate.entered.is_set()


async def test_a_body_without_length_is_counted_as_it_arrives() -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"x" * 100

    async with make(Gate()) as client:
        response = await client.post("/guarded", content=chunks())
    assert problem(response) == (413, "body_too_large")
    assert sent <= 12, "the rest was not read"


@pytest.mark.parametrize("length", ["-1", "many", "1e3"])
async def test_a_length_that_is_no_number_is_malformed(length: str) -> None:
    async with make(Gate()) as client:
        response = await client.post("/guarded", content=b"", headers={"Content-Length": length})
    assert problem(response) == (400, "malformed_request")


async def test_a_failed_request_frees_its_place() -> None:
    gate = Gate()
    gate.opened.set()
    async with make(gate, max_concurrent=1) as client:
        for _ in range(3):
            assert (await client.post("/guarded", content=b"x" * 1001)).status_code == 413
        assert (await client.post("/guarded", content=b"x")).status_code == 200
