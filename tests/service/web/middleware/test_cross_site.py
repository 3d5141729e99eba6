from pathlib import Path

import pytest

from tests.support.processes.client import png, predict, problem, serve

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": ""},
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/explain"])
async def test_what_the_page_of_another_origin_sends_is_refused(
    models: Path, path: str, headers: dict[str, str]
) -> None:
    async with serve(models) as client:
        form = {"image": ("slice.png", png(), "image/png")}
        problem(await client.post(path, files=form, headers=headers), 403, "cross_site")


async def test_the_protocol_has_its_own_form_of_the_refusal(models: Path) -> None:
    async with serve(models) as client:
        answer = await client.post("/v2/models/tiny/infer", json={}, headers={"Origin": "https://evil.example"})
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://ct.example"},
        {"Origin": "http://localhost"},
    ],
)
async def test_programs_and_the_own_page_are_answered(models: Path, headers: dict[str, str]) -> None:
    async with serve(models) as client:
        assert (await predict(client, png(), **headers)).status_code == 200


async def test_an_origin_that_cors_allows_is_answered(models: Path) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://ct.example"}
    for origins in ("https://ct.example", "*"):
        async with serve(models, cors_origins=origins) as client:
            assert (await predict(client, png(), **headers)).status_code == 200


async def test_a_page_of_another_origin_may_follow_a_link_here(models: Path) -> None:
    async with serve(models) as client:
        assert (await client.get("/", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 200
