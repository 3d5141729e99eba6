"""Answers that a page of an allowed origin may read, from whatever layer they come."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.web.path_templates import PathTemplates
from tests.support.processes.client import png, predict, problem, serve

pytestmark = pytest.mark.anyio

ORIGIN = {"Origin": "https://ct.example"}


def readable(answer: httpx2.Response) -> httpx2.Response:
    assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"], answer.text
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    return answer


async def test_other_origins_are_let_in_only_where_that_is_set(models: Path) -> None:
    ask = {**ORIGIN, "Access-Control-Request-Method": "POST"}
    async with serve(models) as client:
        response = await client.get("/health/live", headers=ask)
        assert "access-control-allow-origin" not in response.headers
    async with serve(models, cors_origins=ORIGIN["Origin"]) as client:
        allowed = await client.options("/predict", headers=ask)
        refused = await client.options("/predict", headers={**ask, "Origin": "https://evil.example"})
    assert allowed.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert "access-control-allow-origin" not in refused.headers


async def test_refusals_before_the_route_are_readable(models: Path) -> None:
    async with serve(models, cors_origins=ORIGIN["Origin"], max_body_bytes=100, api_keys="k" * 16) as client:
        problem(readable(await predict(client, png(), **ORIGIN)), 413, "body_too_large")
        problem(readable(await client.get("/model", headers={**ORIGIN, "Host": "evil.example"})), 400, "unknown_host")
        problem(readable(await client.post("/predict", headers=ORIGIN)), 401, "unauthorized")
        problem(readable(await client.get("/nowhere", headers=ORIGIN)), 404, "not_found")
        assert readable(await client.get("/v2/models/other", headers=ORIGIN)).status_code == 404


async def test_overload_and_a_missed_deadline_are_readable(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("service.web.routes.predict.assess_image", never)
    settings: dict[str, Any] = {
        "cors_origins": ORIGIN["Origin"],
        "max_concurrent_requests": 1,
        "request_timeout_seconds": 0.5,
    }
    async with serve(models, **settings) as client:
        answers = await asyncio.gather(predict(client, png(), **ORIGIN), predict(client, png(), **ORIGIN))
    assert sorted(readable(answer).status_code for answer in answers) == [503, 504]


async def test_a_failure_of_any_layer_is_readable(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(models, cors_origins=ORIGIN["Origin"]) as client:

        def failing(self: PathTemplates, path: str) -> str:
            raise RuntimeError

        with monkeypatch.context() as patch:
            patch.setattr("service.web.middleware.request_limits.PathTemplates.match", failing)
            patch.setattr("service.web.middleware.request_context.RequestContextMiddleware._route_of", lambda *_: "x")
            problem(readable(await client.get("/model", headers=ORIGIN)), 500, "internal_error")
