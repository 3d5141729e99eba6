import asyncio
import json
import shutil
from pathlib import Path

import httpx2
import pytest

from service.settings import Settings
from service.web.app import create_app
from tests.support.processes.client import labelled, png, predict, problem, samples, serve

pytestmark = pytest.mark.anyio


async def test_the_model_route_tells_card_hash_and_device(models: Path) -> None:
    async with serve(models) as client:
        body = (await client.get("/model")).json()
    assert body["card"]["name"] == "tiny"
    assert len(body["sha256"]) == 64
    assert body["device"] == "cpu"
    assert body["agreement"] is None
    times = body["precision_milliseconds"]
    assert body["precision"] == min(times, key=times.get, default="fp32"), "the fastest, if there was a choice"


async def test_the_model_route_tells_how_far_its_file_is_from_the_figures_of_the_card(
    models: Path, tmp_path: Path
) -> None:
    shutil.copytree(models, tmp_path / "models")
    path = tmp_path / "models" / "metrics.json"
    manifest = json.loads(path.read_text())
    measured = {"auc": 0.9, "decisions_equal": 0.99, "largest_difference": 0.01}
    path.write_text(json.dumps(manifest | {"agreement": {manifest["files"][0]["name"]: measured | {"later": 1}}}))
    async with serve(tmp_path / "models") as client:
        assert (await client.get("/model")).json()["agreement"] == measured


async def test_before_the_start_nothing_is_ready_and_health_says_so(models: Path) -> None:
    app = create_app(Settings(models_dir=models, device="cpu"))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost") as client:
        for path in ("/health/ready", "/model"):
            response = await client.get(path)
            problem(response, 503, "not_ready")
            assert int(response.headers["retry-after"]) > 0
        problem(await predict(client, png()), 503, "not_ready")
        assert (await client.get("/health/live")).status_code == 200
        assert (await samples(client))[labelled("covidct_ready")] == 0


async def test_a_dead_worker_is_neither_ready_nor_live(models: Path) -> None:
    """Restarting is the only cure, so the orchestrator must see it."""
    app = create_app(Settings(models_dir=models, device="cpu"))
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        assert (await client.get("/health/ready")).status_code == 200
        (worker,) = [task for task in asyncio.all_tasks() if task.get_name() == "batcher"]
        worker.cancel()
        await asyncio.wait({worker})
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health/live")).status_code == 503
        assert (await samples(client))[labelled("covidct_ready")] == 0
        assert (await asyncio.wait_for(predict(client, png()), 5)).status_code == 503
