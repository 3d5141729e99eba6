import base64
import io
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.support.processes.client import labelled, png, predict, problem, samples, serve

pytestmark = pytest.mark.anyio


async def explain(client: httpx2.AsyncClient, data: bytes, query: str = "", accept: str = "*/*") -> httpx2.Response:
    return await client.post(f"/explain{query}", files={"image": ("a.png", data)}, headers={"Accept": accept})


def image_of(data: bytes | str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data) if isinstance(data, str) else data))


def slice_of(width: int, height: int) -> bytes:
    file = io.BytesIO()
    levels = np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))
    Image.fromarray(levels).save(file, "PNG")
    return file.getvalue()


async def test_it_answers_an_overlay_with_a_colour_bar_and_the_probability(models: Path) -> None:
    async with serve(models) as client:
        response = await explain(client, slice_of(120, 80))
        probability = (await predict(client, slice_of(120, 80))).json()["probability"]
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    image = image_of(response.content)
    assert (image.height, image.mode) == (80, "RGB")
    assert image.width > 120, "the slice and the colour bar"
    assert float(response.headers["x-covidct-probability"]) == pytest.approx(probability, abs=1e-6)
    assert response.headers["x-covidct-label"] == "NonCOVID"
    assert response.headers["x-covidct-flagged"] == "false"
    right, left = np.asarray(image)[40, 110], np.asarray(image)[40, 5]
    assert (
        np.ptp(right.astype(int)) > 40 > np.ptp(left.astype(int))
    )  # the tiny network finds evidence where it is bright


async def test_it_answers_the_bare_map(models: Path) -> None:
    async with serve(models) as client:
        image = image_of((await explain(client, png(200), "?map=true")).content)
    assert (image.mode, image.size) == ("L", (4, 4))
    assert np.asarray(image).max() == pytest.approx(200, abs=1), "the value itself, not relative to the strongest"


async def test_json_has_the_prediction_the_values_and_the_pictures(models: Path) -> None:
    async with serve(models) as client:
        body: dict[str, Any] = (await explain(client, slice_of(120, 80), accept="application/json")).json()
        prediction = (await predict(client, slice_of(120, 80))).json()
    names = prediction.keys() - {"request_id", "timings_milliseconds"}
    assert {name: body[name] for name in names} == {name: prediction[name] for name in names}
    values = np.array(body["heatmap"]["values"])
    assert values.shape == (body["heatmap"]["height"], body["heatmap"]["width"]) == (4, 4)
    assert np.all(np.diff(values[1]) > 0)  # brighter to the right
    assert 0 <= values.min() < 0.2 < 0.7 < values.max() <= 1
    assert np.array(body["lungs"]["values"]).shape == (4, 4)
    assert image_of(body["slice_png_base64"]).mode == "L"
    assert image_of(body["slice_png_base64"]).size == image_of(body["overlay_png_base64"]).size == (120, 80)


async def test_the_longest_side_of_the_slice_can_be_bounded(models: Path) -> None:
    async with serve(models) as client:
        assert image_of((await explain(client, slice_of(300, 200), "?max_side=150")).content).height == 100
        body = (await explain(client, slice_of(300, 200), "?max_side=150", "application/json")).json()
    assert image_of(body["slice_png_base64"]).size == image_of(body["overlay_png_base64"]).size == (150, 100)


async def test_the_outline_of_the_lungs_is_drawn_where_that_is_asked(models: Path) -> None:
    left_dark = np.zeros((80, 120), np.uint8)
    left_dark[:, 60:] = 90
    file = io.BytesIO()
    Image.fromarray(left_dark).save(file, "PNG")
    async with serve(models) as client:
        without, with_it = [
            np.asarray(image_of((await explain(client, file.getvalue(), query)).content))[:80, :120].astype(int)
            for query in ("", "?lungs=true")
        ]
    changed = np.argwhere(np.abs(without - with_it).max(2) > 50)
    assert len(changed) > 40
    assert 35 < changed[:, 1].min() <= changed[:, 1].max() < 75, "between the dark half and the bright one"


@pytest.mark.parametrize("query", ["", "?lungs=true", "?map=true"])
async def test_a_model_without_lungs_has_a_heat_map_alone(classifier_models: Path, query: str) -> None:
    async with serve(classifier_models) as client:
        response = await explain(client, png(200), query, "application/json")
        picture = await explain(client, png(200), query)
    assert response.json()["lungs"] is None
    assert response.json()["heatmap"]["values"][1][1] == pytest.approx(200 / 255, abs=0.01)
    assert picture.headers["content-type"] == "image/png"


async def test_what_no_client_of_it_can_read_is_not_made(models: Path) -> None:
    async with serve(models) as client:
        problem(await explain(client, png(), accept="text/html"), 406, "not_acceptable")
        assert (await samples(client))[labelled("covidct_predictions_total", label="COVID")] == 0


@pytest.mark.parametrize("name", ["map", "lungs", "max_side"])
async def test_a_parameter_that_is_none_is_a_problem_that_names_it(models: Path, name: str) -> None:
    async with serve(models) as client:
        response = await client.post(f"/explain?{name}=maybe", files={"image": png()})
        assert name in str(problem(response, 400, "malformed_request")["detail"])


async def test_its_limits_are_those_of_predict(models: Path) -> None:
    async with serve(models, max_body_bytes=100) as client:
        problem(await explain(client, png()), 413, "body_too_large")
