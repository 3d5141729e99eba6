"""Errors of the outer layers, which no route and no handler sees."""

import httpx2
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from service.metrics import Metrics
from service.web.middleware.failures import FailuresMiddleware
from service.web.middleware.request_context import RequestContextMiddleware
from service.web.path_templates import PathTemplates

pytestmark = pytest.mark.anyio


def failing(*, begun: bool) -> ASGIApp:
    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("secret")

    return layer


async def answer(app: ASGIApp) -> tuple[httpx2.Response, set[str]]:
    """The answer, and the counted statuses."""
    metrics = Metrics()
    context = RequestContextMiddleware(FailuresMiddleware(app), metrics, PathTemplates())
    transport = httpx2.ASGITransport(context, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get("/anything")
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    return response, {sample.labels["status"] for sample in samples if sample.name == "covidct_requests_total"}


async def test_a_layer_that_fails_is_a_counted_500_with_a_request_id() -> None:
    response, statuses = await answer(failing(begun=False))
    assert (response.status_code, response.json()["code"], statuses) == (500, "internal_error", {"500"})
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert "secret" not in response.text


async def test_a_failure_after_the_start_of_the_answer_is_counted_as_a_500() -> None:
    assert (await answer(failing(begun=True)))[1] == {"500"}
