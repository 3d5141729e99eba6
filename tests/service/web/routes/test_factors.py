"""Three answers to one slice: is there a lesion, does it look like COVID-19, and their product."""

import base64
from pathlib import Path

import pytest

from tests.support.networks.tiny import TinyDoctor, doctor_card, write_models
from tests.support.processes.client import png, predict, serve

pytestmark = pytest.mark.anyio

BETWEEN = png(110)
"""A slice with a lesion, by its threshold, and a probability below the other one."""


@pytest.fixture
def doctor(tmp_path: Path) -> Path:
    """A models folder whose network gives all three answers."""
    write_models(tmp_path, doctor_card(), TinyDoctor())
    return tmp_path


async def test_the_probability_is_the_product_of_the_other_two(doctor: Path) -> None:
    async with serve(doctor) as client:
        answer = (await predict(client, BETWEEN)).json()
    assert 0 < answer["lesion_probability"] < 1
    product = answer["lesion_probability"] * answer["covid_given_lesion"]
    assert answer["probability"] == pytest.approx(product, abs=1e-6)


async def test_each_operating_point_asks_its_own_question(doctor: Path) -> None:
    async with serve(doctor) as client:
        usual = (await predict(client, BETWEEN)).json()
        triage = (await client.post("/predict?operating_point=triage", files={"image": BETWEEN})).json()
        old_name = (await client.post("/predict?operating_point=screening", files={"image": BETWEEN})).json()
    named = ("operating_point", "threshold", "lesion_threshold", "label")
    assert [usual[name] for name in named] == ["differential", 0.5, 0.0, "NonCOVID"]
    assert [triage[name] for name in named] == ["triage", 0.0, 0.6, "COVID"]
    assert [old_name[name] for name in named] == [triage[name] for name in named]


async def test_every_other_way_to_ask_gives_the_same_answers(doctor: Path) -> None:
    async with serve(doctor, operating_point="triage") as client:
        expected = (await predict(client, BETWEEN)).json()
        headers = (await client.post("/explain", files={"image": BETWEEN})).headers
        file = base64.b64encode(BETWEEN).decode()
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [file]}
        body = (await client.post("/v2/models/tiny/infer", json={"inputs": [tensor]})).json()
        described = (await client.get("/v2/models/tiny")).json()["outputs"]
    outputs = {output["name"]: output["data"][0] for output in body["outputs"]}
    for name in ("lesion_probability", "covid_given_lesion", "lesion_threshold"):
        assert float(headers[f"x-covidct-{name.replace('_', '-')}"]) == pytest.approx(expected[name], abs=1e-5)
        assert outputs[name] == pytest.approx(expected[name], abs=1e-6)
        assert name in {parameter["name"] for parameter in described}


async def test_a_model_without_these_answers_has_null(models: Path) -> None:
    async with serve(models) as client:
        answer = (await predict(client, BETWEEN)).json()
        headers = (await client.post("/explain", files={"image": BETWEEN})).headers
    assert [answer[name] for name in ("lesion_probability", "covid_given_lesion", "lesion_threshold")] == [None] * 3
    assert not any("lesion" in name for name in headers)


async def test_a_picture_without_lungs_has_no_involvement(models: Path) -> None:
    async with serve(models, out_of_distribution="flag") as client:
        answer = (await predict(client, png(1))).json()
        file = base64.b64encode(png(1)).decode()
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [file]}
        body = (await client.post("/v2/models/tiny/infer", json={"inputs": [tensor]})).json()
    assert answer["out_of_distribution"]["reason"] == "no_lungs"
    assert answer["lung_involvement"] is None
    outputs = {output["name"]: output["data"] for output in body["outputs"]}
    assert outputs["lung_involvement"] == [0.0, 0.0, 0.0]
