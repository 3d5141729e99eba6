import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx2
import pytest

from service.imaging.decode import Slice
from service.inference.service_state import load
from service.model.prediction import NetworkPrediction
from service.settings import Settings
from tests.support.processes.client import labelled, png, predict, problem, samples, serve

pytestmark = pytest.mark.anyio


async def post(client: httpx2.AsyncClient, *files: bytes) -> httpx2.Response:
    fields = [("image", (f"{index}.png", data, "image/png")) for index, data in enumerate(files)]
    return await client.post("/predict/batch", files=fields)


async def test_each_image_gets_its_own_answer_in_order(models: Path) -> None:
    levels = (220, 40, 128, 90, 250, 60)
    async with serve(models) as client:
        body = (await post(client, *(png(level) for level in levels))).json()
        alone = [(await predict(client, png(level))).json()["probability"] for level in levels]
    assert [result["index"] for result in body["results"]] == list(range(6))
    assert [result["prediction"]["probability"] for result in body["results"]] == alone
    assert all(result["problem"] is None for result in body["results"])
    assert "not a medical device" in body["disclaimer"]


async def test_results_have_the_names_of_their_files(models: Path) -> None:
    names = ["b.png", "a.png", "a.png"]
    fields = [("image", (name, png(), "image/png")) for name in names]
    unnamed = b"Content-Disposition: form-data; name=\"image\"; filename*=utf-8''%E8%82%BA.png"
    body = b"--xyz\r\n" + unnamed + b"\r\n\r\n" + png() + b"\r\n--xyz--\r\n"
    async with serve(models) as client:
        results = (await client.post("/predict/batch", files=fields)).json()["results"]
        headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
        (result,) = (await client.post("/predict/batch", content=body, headers=headers)).json()["results"]
    assert [(result["index"], result["name"]) for result in results] == list(enumerate(names))
    assert result["name"] is None


async def test_the_number_of_images_is_a_setting(models: Path) -> None:
    async with serve(models, max_images_per_request=40) as client:
        assert len((await post(client, *[png()] * 40)).json()["results"]) == 40


async def test_a_file_that_cannot_be_used_fails_alone_and_is_counted(models: Path) -> None:
    async with serve(models) as client:
        response = await post(client, png(220), b"text", png()[:60], b"", png(200))
        counts = await samples(client)
    assert response.status_code == 200
    results = response.json()["results"]
    problems = [result["problem"] and result["problem"]["code"] for result in results]
    assert problems == [None, "unsupported_image_type", "damaged_image", "empty_file", None]
    assert [result["prediction"] is None for result in results] == [False, True, True, True, False]
    assert results[1]["problem"]["status"] == 415
    assert results[1]["problem"]["request_id"] == response.headers["x-request-id"]
    assert counts[labelled("covidct_predictions_total", label="COVID")] == 2
    assert counts[labelled("covidct_rejected_images_total", reason="damaged_image")] == 1


async def test_an_image_that_is_no_slice_is_its_own_problem_where_that_is_set(models: Path) -> None:
    async with serve(models) as client:
        results = (await post(client, png(2), png(200), png(255))).json()["results"]
    assert [result["problem"] and result["problem"]["code"] for result in results] == ["no_lungs", None, "wrong_window"]
    assert results[1]["prediction"]["label"] == "COVID"
    assert results[1]["prediction"]["lung_involvement"] == {"both": 1.0, "left": 1.0, "right": 1.0}


async def test_more_images_than_allowed_are_refused_before_any_is_decoded(models: Path) -> None:
    async with serve(models, max_images_per_request=3) as client:
        assert (await post(client, *[png()] * 3)).status_code == 200
        detail = problem(await post(client, *[png()] * 4), 413, "too_many_images")["detail"]
        assert "limit is 3 images" in str(detail)
        problem(await post(client, *[png()] * 60), 413, "too_many_images")


async def test_a_request_does_not_fill_the_queue_by_itself(models: Path) -> None:
    async with serve(models, queue_max_length=2) as client:
        results = (await post(client, *[png()] * 20)).json()["results"]
    assert [result["problem"] for result in results] == [None] * 20


async def test_a_client_that_leaves_has_the_rest_of_its_images_dropped(models: Path) -> None:
    predictor = load(Settings(models_dir=models, device="cpu", threads=1))
    predict_all, seen, started, go_on = predictor.predict, [0], asyncio.Event(), asyncio.Event()

    async def counting(
        slices: Sequence[Slice], concurrent_batches: int = 1, look_first: Sequence[bool] = ()
    ) -> list[NetworkPrediction | Exception]:
        seen[0] += len(slices)
        started.set()
        await go_on.wait()
        return await predict_all(slices, concurrent_batches)

    predictor.predict = counting  # type: ignore[method-assign]
    async with serve(models, predictor) as client:
        request = asyncio.create_task(post(client, *[png()] * 10))
        await asyncio.wait_for(started.wait(), 10)
        request.cancel()
        await asyncio.wait({request})
        go_on.set()
        assert (await predict(client, png())).status_code == 200
        counts = await samples(client)
    assert seen[0] <= 4  # the one that ran, the one that waited, and this one
    assert counts[labelled("covidct_queue_depth")] == 0
