"""Another model takes over while requests are being answered."""

import asyncio
import logging
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from service.artifact import MANIFEST_NAME, read_manifest
from service.predictor import Predictor, load_predictor
from service.settings import Settings
from tests.service.client import labelled, png, predict, problem, samples, serve
from tests.tiny import tiny_card, write_models

pytestmark = pytest.mark.anyio

KEY = "admin-key-0123456789"
KEYS = SecretStr(f"admin:{KEY}")
HEADERS = {"X-API-Key": KEY}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of this test's own, which it rewrites."""
    write_models(tmp_path)
    return tmp_path


async def reload(client: httpx2.AsyncClient) -> httpx2.Response:
    return await client.post("/admin/reload", headers=HEADERS)


async def version(client: httpx2.AsyncClient) -> str:
    return str((await client.get("/model")).json()["card"]["version"])


def write_version(folder: Path, version: str) -> None:
    write_models(folder, tiny_card().model_copy(update={"version": version}))


async def test_a_new_model_takes_over_and_is_shown(models: Path) -> None:
    async with serve(models, api_keys=KEYS) as client:
        before = (await predict(client, png(), **HEADERS)).json()["model"]["version"]
        write_version(models, "0.0.2")
        answer = await reload(client)
        after = (await predict(client, png(), **HEADERS)).json()["model"]["version"]
        counts = await samples(client)
        assert await version(client) == "0.0.2"
    assert (before, after, answer.json()["version"]) == ("0.0.1", "0.0.2", "0.0.2")
    served = [
        dict(labels)["version"] for (name, labels), value in counts.items() if name == "covidct_model_info" and value
    ]
    assert served == ["0.0.2"]
    assert counts[labelled("covidct_model_reloads_total", outcome="success")] == 1


async def test_no_request_fails_while_models_are_exchanged_under_load(models: Path) -> None:
    statuses: list[int] = []
    done = asyncio.Event()

    async def load(client: httpx2.AsyncClient) -> None:
        while not done.is_set():
            statuses.append((await predict(client, png(), **HEADERS)).status_code)

    async with serve(models, api_keys=KEYS) as client:
        loads = [asyncio.create_task(load(client)) for _ in range(8)]
        for number in range(2, 7):
            write_version(models, f"0.0.{number}")
            assert (await reload(client)).status_code == 200
        done.set()
        await asyncio.gather(*loads)
        assert await version(client) == "0.0.6"
    assert len(statuses) > 20
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
    async with serve(models, api_keys=KEYS) as client:
        assert callable(spoil)
        spoil(models)
        body = problem(await reload(client), 500, "reload_failed")
        assert (await predict(client, png(), **HEADERS)).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200
        assert (await samples(client))[labelled("covidct_model_reloads_total", outcome="failure")] == 1
        write_version(models, "0.0.3")
        assert (await reload(client)).json()["version"] == "0.0.3"
    assert "former model" in str(body["detail"])
    assert str(models) not in str(body["detail"])
    assert "reload failed" in caplog.text


async def test_two_reloads_at_once_are_one(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = 0

    def counting(settings: Settings) -> Predictor:
        nonlocal loads
        loads += 1
        return load_predictor(settings)

    async with serve(models, api_keys=KEYS) as client:
        monkeypatch.setattr("service.serving.load_predictor", counting)
        answers = await asyncio.gather(*(reload(client) for _ in range(5)))
        counts = await samples(client)
    assert [answer.status_code for answer in answers] == [200] * 5
    assert loads == 1
    assert counts[labelled("covidct_model_reloads_total", outcome="success")] == 1


async def test_a_client_that_leaves_does_not_end_the_reload(models: Path) -> None:
    async with serve(models, api_keys=KEYS) as client:
        write_version(models, "0.0.2")
        asking = asyncio.create_task(reload(client))
        await asyncio.sleep(0)
        asking.cancel()
        assert (await reload(client)).status_code == 200
        assert await version(client) == "0.0.2"


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
    async with serve(models, api_keys=KEYS) as client:
        assert (await reload(client)).status_code == 200
        await asyncio.wait_for(closed.wait(), 10)
        assert (await predict(client, png(), **HEADERS)).status_code == 200
    assert "reloaded" in caplog.text
