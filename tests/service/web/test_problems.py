from pathlib import Path

import pytest

from service.inference.service_state import load
from service.settings import Settings
from tests.support.processes.client import png, predict, problem, serve

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/predict", 405)])
async def test_errors_of_the_router_are_problems(models: Path, method: str, path: str, status: int) -> None:
    async with serve(models) as client:
        response = await client.request(method, path)
    problem(response, status, {404: "not_found", 405: "method_not_allowed"}[status])
    assert response.headers.get("allow") == ("POST" if status == 405 else None)


class BrokenError(RuntimeError):
    """An error that a network may raise."""


async def test_an_unexpected_error_tells_the_client_nothing_of_itself_and_the_next_request_is_served(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = load(Settings(models_dir=models, device="cpu"))
    healthy = predictor._network

    def fail(slices: object) -> object:
        raise BrokenError("secret-of-the-network")

    async with serve(models, predictor) as client:
        predictor._network = fail  # type: ignore[assignment]
        response = await predict(client, png())
        predictor._network = healthy
        assert (await predict(client, png())).status_code == 200
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret" not in response.text
    assert "secret-of-the-network" in caplog.text
