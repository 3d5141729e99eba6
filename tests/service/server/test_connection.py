"""Places of connections, with an application that answers when it is told to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from service.metrics import Metrics
from service.server.connection import Connection, ConnectionLimits

pytestmark = pytest.mark.anyio

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Service:
    """An application behind real sockets, with two places."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self.go = asyncio.Event()
        self.asked = asyncio.Semaphore(0)
        self.port = 0
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.release()
        await self.go.wait()
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def connect(self, data: bytes = b"") -> asyncio.StreamReader:
        reader, _ = await self.open(data)
        return reader

    async def open(self, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._stack.callback(writer.close)
        writer.write(data)
        return reader, writer


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with contextlib.AsyncExitStack() as stack:
        service = Service(stack)
        limits = ConnectionLimits(header_seconds=20, unread_seconds=0.1, max_connections=2)
        config = Config(service, ws="none", log_config=None)
        make = partial(Connection, config, ServerState(), {}, limits=limits, metrics=Metrics())
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        await stack.enter_async_context(server)
        service.port = server.sockets[0].getsockname()[1]
        yield service


async def test_a_connection_is_refused_where_every_other_one_is_being_answered(service: Service) -> None:
    busy = [await service.connect(REQUEST) for _ in range(2)]
    for _ in busy:
        await service.asked.acquire()
    refused = await service.connect()
    assert (await refused.read()).startswith(b"HTTP/1.1 503 Service Unavailable")
    service.go.set()
    assert [(await reader.read())[:12] for reader in busy] == [b"HTTP/1.1 204"] * 2


async def test_a_body_that_its_route_reads_has_the_time_of_the_route(service: Service) -> None:
    service.go.set()
    reader, writer = await service.open(REQUEST.replace(b"\r\n\r\n", b"\r\nContent-Length: 8\r\n\r\nhalf"))
    await service.asked.acquire()
    await asyncio.sleep(0.3)  # longer than an unread body may take
    writer.write(b"half")
    assert (await reader.read()).startswith(b"HTTP/1.1 204")


async def test_a_client_that_closes_its_sending_side_leaves_its_study(service: Service) -> None:
    reader, writer = await service.open(REQUEST.replace(b"GET /", b"GET /predict/study"))
    await service.asked.acquire()
    writer.write_eof()
    assert await reader.read() == b""
    service.go.set()
