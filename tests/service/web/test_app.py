"""Another model takes over while requests are being answered."""

import asyncio
import logging
from pathlib import Path

import httpx2
import pytest

from service.model.card import MANIFEST_NAME
from service.model.file import read_manifest
from service.model.predictor import Predictor
from tests.support.networks.tiny import tiny_card, write_models
from tests.support.processes.client import labelled, png, predict, problem, reload, samples, serve

pytestmark = pytest.mark.anyio

OLD = "old-key-0123456789"
NEW = "new-key-0123456789"
PARTS = [(part, outcome) for part in ("keys", "model") for outcome in ("success", "failure")]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of this test's own, which it rewrites."""
    write_models(tmp_path)
    return tmp_path


async def version(client: httpx2.AsyncClient) -> str:
    return str((await client.get("/model")).json()["card"]["version"])


def write_version(folder: Path, version: str) -> None:
    write_models(folder, tiny_card().model_copy(update={"version": version}))


async def test_a_new_model_takes_over_and_is_shown(models: Path) -> None:
    async with serve(models) as client:
        before = (await predict(client, png())).json()["model"]["version"]
        write_version(models, "0.0.2")
        assert await reload(client)
        after = (await predict(client, png())).json()["model"]["version"]
        counts = await samples(client)
        assert await version(client) == "0.0.2"
    assert (before, after) == ("0.0.1", "0.0.2")
    served = [
        dict(labels)["version"] for (name, labels), value in counts.items() if name == "covidct_model_info" and value
    ]
    assert served == ["0.0.2"]
    assert counts[labelled("covidct_model_reloads_total", part="model", outcome="success")] == 1


async def test_no_request_fails_while_models_are_exchanged_under_load(models: Path) -> None:
    statuses: list[int] = []
    answered, done = asyncio.Event(), asyncio.Event()

    async def load(client: httpx2.AsyncClient) -> None:
        while not done.is_set():
            statuses.append((await predict(client, png())).status_code)
            answered.set()

    async with serve(models) as client:
        loads = [asyncio.create_task(load(client)) for _ in range(8)]
        for number in range(2, 7):
            answered.clear()
            await asyncio.wait_for(answered.wait(), 10)
            write_version(models, f"0.0.{number}")
            assert await reload(client)
        done.set()
        await asyncio.gather(*loads)
        assert await version(client) == "0.0.6"
    assert set(statuses) == {200}


def truncate(models: Path) -> None:
    (row,) = read_manifest(models).files
    path = models / row.name
    path.write_bytes(path.read_bytes()[:100])


def vanish(models: Path) -> None:
    (row,) = read_manifest(models).files
    (models / row.name).unlink()


def fail_the_self_check(models: Path) -> None:
    write_models(models, tiny_card(probability=0.99))


def use_an_unknown_schema(models: Path) -> None:
    (models / MANIFEST_NAME).write_text('{"schema_version": 99, "files": []}')


@pytest.mark.parametrize("spoil", [truncate, vanish, fail_the_self_check, use_an_unknown_schema])
async def test_a_model_that_cannot_be_used_changes_nothing_and_is_told(
    models: Path, spoil: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(models) as client:
        assert callable(spoil)
        spoil(models)
        assert not await reload(client)
        assert (await predict(client, png())).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200
        assert (await samples(client))[labelled("covidct_model_reloads_total", part="model", outcome="failure")] == 1
        write_version(models, "0.0.3")
        assert await reload(client)
        assert await version(client) == "0.0.3"
    assert "reload failed" in caplog.text


async def test_the_former_model_ends_once_its_last_request_is_answered(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()
    close = Predictor.close

    def noting(self: Predictor) -> None:
        close(self)
        loop.call_soon_threadsafe(closed.set)

    monkeypatch.setattr(Predictor, "close", noting)
    caplog.set_level(logging.INFO)
    async with serve(models) as client:
        assert await reload(client)
        await asyncio.wait_for(closed.wait(), 10)
        assert (await predict(client, png())).status_code == 200
    assert "reloaded" in caplog.text


async def test_a_key_is_revoked_whatever_the_models_folder_holds(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{OLD}\n")
    async with serve(models, api_keys_file=file) as client:
        file.write_text(f"{NEW}\n")
        (models / MANIFEST_NAME).write_bytes(b"{")
        assert not await reload(client)
        problem(await predict(client, png(), **{"X-API-Key": OLD}), 401, "unauthorized")
        assert (await predict(client, png(), **{"X-API-Key": NEW})).status_code == 200
        counts = await samples(client)
    reloads = {key: counts[labelled("covidct_model_reloads_total", part=key[0], outcome=key[1])] for key in PARTS}
    assert reloads == {("keys", "success"): 1, ("keys", "failure"): 0, ("model", "success"): 0, ("model", "failure"): 1}


async def test_a_model_is_taken_whatever_the_keys_file_holds(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{OLD}\n")
    async with serve(models, api_keys_file=file) as client:
        file.write_text("")
        write_version(models, "0.0.2")
        assert not await reload(client)
        assert await version(client) == "0.0.2"
        assert (await predict(client, png(), **{"X-API-Key": OLD})).status_code == 200


async def test_the_documentation_can_be_turned_off(models: Path) -> None:
    async with serve(models, docs=False) as client:
        for path in ("/docs", "/openapi.json", "/redoc"):
            answer = await client.get(path)
            problem(answer, 404, "not_found")
            assert "/docs lists" not in answer.text


async def test_the_documentation_is_counted_under_its_route_and_named_where_a_route_is_missing(models: Path) -> None:
    async with serve(models) as client:
        for path in ("/docs", "/openapi.json"):
            await client.get(path)
        assert "GET /docs lists all routes" in (await client.get("/nowhere")).text
        text = (await client.get("/metrics")).text
    for path in ("/docs", "/openapi.json"):
        assert f'covidct_requests_total{{method="GET",route="{path}",status="200"}} 1.0' in text


async def test_answers_hold_no_path_and_no_version_of_a_library(models: Path) -> None:
    async with serve(models) as client:
        answers = [await client.get(path) for path in ("/model", "/metrics", "/nowhere", "/health/ready")]
    for answer in answers:
        text = answer.text + str(answer.headers)
        assert str(models) not in text
        for name in ("torch=", '"torch"', "uvicorn", "starlette", "python_info"):
            assert name not in text, answer.url
