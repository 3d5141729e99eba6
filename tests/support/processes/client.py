"""A running application and a client for it, in one event loop and without a socket."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from fastapi import FastAPI
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from service.imaging.cage.fork_server import ForkServer
from service.model.predictor import Predictor
from service.settings import Settings
from service.web.app import create_app, reload_keys, reload_model

MEDIA_TYPE = "application/problem+json"


@cache
def fork_server() -> ForkServer:
    """One for all applications of a test process; it ends with that."""
    return ForkServer()


@asynccontextmanager
async def serve(models: Path, predictor: Predictor | None = None, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an application that has started; it ends with the context."""
    app = create_app(Settings(models_dir=models, device="cpu", **settings), predictor, fork_server())
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


def png(level: int = 200, side: int = 64) -> bytes:
    """An even grey slice."""
    file = io.BytesIO()
    Image.fromarray(np.full((side, side), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


def panels(level: int = 200, side: int = 64) -> bytes:
    """Two even grey panels with a dark bar between them."""
    pixels = np.full((side, side), level, np.uint8)
    pixels[:, side * 3 // 8 : side * 5 // 8] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def noise(side: int) -> bytes:
    """A slice that does not compress: about `side` squared bytes."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


async def reload(client: httpx2.AsyncClient) -> bool:
    """Do what SIGHUP does: whether the keys and the model were taken."""
    transport = client._transport
    assert isinstance(transport, httpx2.ASGITransport)
    app = transport.app
    assert isinstance(app, FastAPI)
    return all([await reload_keys(app), await reload_model(app)])


async def predict(client: httpx2.AsyncClient, data: bytes, **headers: str) -> httpx2.Response:
    """Post `data` as curl -F image=@slice.png does."""
    return await client.post("/predict", files={"image": ("slice.png", data, "image/png")}, headers=headers)


def problem(response: httpx2.Response, status: int, code: str) -> dict[str, object]:
    """The body of a response that must be this problem."""
    assert (response.status_code, response.headers["content-type"]) == (status, MEDIA_TYPE), response.text
    body: dict[str, object] = response.json()
    assert body["code"] == code
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["title"]
    assert body["detail"]
    assert "Traceback" not in response.text
    return body


async def samples(client: httpx2.AsyncClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Samples of /metrics: value by name and labels."""
    text = (await client.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labelled(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """A key of `samples`."""
    return name, frozenset(labels.items())
