"""The operating point of an answer: chosen by a setting or by a request, and part of the answer."""

import base64
from pathlib import Path

import pytest

from service.errors import ModelFileError
from service.inference.service_state import load
from service.settings import Settings
from tests.support.processes.client import labelled, png, predict, problem, samples, serve

pytestmark = pytest.mark.anyio

BETWEEN = png(110)
"""A slice with a probability between the two thresholds of the tiny model's card."""


def form(*files: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", ("slice.png", data, "image/png")) for data in files]


async def test_a_request_chooses_the_operating_point_and_the_answer_says_which_was_used(models: Path) -> None:
    async with serve(models) as client:
        usual = (await predict(client, BETWEEN)).json()
        asked = "?operating_point=screening"
        single = (await client.post(f"/predict{asked}", files=form(BETWEEN))).json()
        many = (await client.post(f"/predict/batch{asked}", files=form(BETWEEN, BETWEEN))).json()
        picture = (await client.post(f"/explain{asked}", files=form(BETWEEN))).headers
        again = (await predict(client, BETWEEN)).json()
    assert (usual["operating_point"], usual["threshold"], usual["label"]) == ("balanced", 0.5, "NonCOVID")
    for answer in (single, many["results"][1]["prediction"]):
        assert (answer["operating_point"], answer["threshold"], answer["label"]) == ("screening", 0.3, "COVID")
        assert answer["probability"] == pytest.approx(usual["probability"], abs=1e-6)
    names = ("x-covidct-operating-point", "x-covidct-threshold", "x-covidct-label")
    assert [picture[name] for name in names] == ["screening", "0.3", "COVID"]
    assert again["operating_point"] == "balanced"


async def test_the_setting_chooses_it_for_requests_that_name_none(models: Path) -> None:
    async with serve(models, operating_point="screening") as client:
        answer = (await predict(client, BETWEEN)).json()
        named = (await client.post("/predict?operating_point=balanced", files=form(BETWEEN))).json()
        served = (await client.get("/model")).json()
        file = base64.b64encode(BETWEEN).decode()
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [file]}
        outputs = (await client.post("/v2/models/tiny/infer", json={"inputs": [tensor]})).json()["outputs"]
    assert (answer["operating_point"], answer["label"]) == ("screening", "COVID")
    assert (named["operating_point"], named["label"]) == ("balanced", "NonCOVID")
    assert served["operating_point"] == "screening"
    values = {output["name"]: output["data"][0] for output in outputs}
    assert (values["label"], values["threshold"]) == ("COVID", pytest.approx(0.3))


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/explain"])
async def test_an_operating_point_that_the_card_has_not_is_refused_with_those_it_has(models: Path, path: str) -> None:
    async with serve(models) as client:
        response = await client.post(f"{path}?operating_point=sharp", files=form(BETWEEN))
    assert "no operating point 'sharp'; its operating points: balanced, screening" in str(
        problem(response, 400, "malformed_request")["detail"]
    )


def test_a_setting_that_the_card_has_not_stops_the_start_with_one_line(models: Path) -> None:
    with pytest.raises(ModelFileError, match=r"^COVIDCT_OPERATING_POINT: .* no operating point 'sharp'.*screening\.$"):
        load(Settings(models_dir=models, device="cpu", operating_point="sharp"))


async def test_what_fails_a_check_has_no_label_in_any_answer(models: Path) -> None:
    async with serve(models, out_of_distribution="flag") as client:
        single = (await predict(client, png(255))).json()
        many = (await client.post("/predict/batch", files=form(png(255)))).json()["results"][0]["prediction"]
        picture = await client.post("/explain", files=form(png(255)))
        counts = await samples(client)
    for answer in (single, many):
        assert (answer["label"], answer["out_of_distribution"]["reason"]) == (None, "wrong_window")
    assert "x-covidct-label" not in picture.headers
    assert picture.headers["x-covidct-flagged"] == "true"
    assert counts[labelled("covidct_predictions_total", label="none")] == 3
    assert counts[labelled("covidct_predictions_total", label="COVID")] == 0


@pytest.mark.parametrize(
    ("method", "path", "takes"),
    [
        ("POST", "/predict", "operating_point"),
        ("POST", "/predict/batch", "operating_point"),
        ("POST", "/explain", "map, lungs, max_side, operating_point"),
        ("GET", "/model", "none"),
        ("GET", "/v2/models/tiny", "none"),
        ("POST", "/v2/models/tiny/infer", "none"),
    ],
)
async def test_an_unknown_query_parameter_is_refused_by_its_name(
    models: Path, method: str, path: str, takes: str
) -> None:
    async with serve(models) as client:
        files = form(BETWEEN) if method == "POST" else None
        response = await client.request(method, f"{path}?window=40,400", files=files)
        assert response.status_code == 400
        assert f"no query parameter 'window'; it takes {takes}." in response.text


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/explain"])
async def test_an_operating_point_is_named_once(models: Path, path: str) -> None:
    async with serve(models) as client:
        query = "operating_point=screening&operating_point=balanced"
        answer = await client.post(f"{path}?{query}", files=form(BETWEEN))
        assert answer.status_code == 400
        assert "'operating_point' is there several times; send it once" in answer.text
