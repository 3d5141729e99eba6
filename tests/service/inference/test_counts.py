"""Counted are images, on every route that takes them."""

import base64
import json
from pathlib import Path

import httpx2
import pytest
import torch

from service.inference.service_state import load
from service.settings import Settings
from tests.support.networks.tiny import write_models
from tests.support.processes.client import labelled, png, predict, problem, reload, samples, serve
from tests.support.processes.server import ROOT

pytestmark = pytest.mark.anyio

KEY = "a-key-of-16-chars"


def rejected(counts: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> dict[str, float]:
    """Rejected images by reason, without those counted as 0."""
    by_reason = {
        dict(labels)["reason"]: value for (name, labels), value in counts.items() if name.endswith("images_total")
    }
    return {reason: value for reason, value in by_reason.items() if value}


async def infer(client: httpx2.AsyncClient, *rows: bytes) -> httpx2.Response:
    """Send files to the V2 protocol."""
    data = [base64.b64encode(row).decode() for row in rows]
    body = {"inputs": [{"name": "image", "shape": [len(rows)], "datatype": "BYTES", "data": data}]}
    return await client.post("/v2/models/tiny/infer", json=body)


async def test_a_request_that_brings_no_image_rejects_no_image(models: Path) -> None:
    async with serve(models, api_keys=KEY, max_body_bytes=5000) as client:
        problem(await predict(client, png()), 401, "unauthorized")
        client.headers["X-API-Key"] = KEY
        problem(await predict(client, bytes(6000)), 413, "body_too_large")
        problem(await client.post("/predict", files={"scan": png()}), 400, "missing_image")
        problem(await client.post("/predict", content=b"x"), 415, "unsupported_content_type")
        problem(await client.post("/predict?window=1", files={"image": png()}), 400, "malformed_request")
        headers = {"Accept": "text/html"}
        problem(await client.post("/explain", files={"image": png()}, headers=headers), 406, "not_acceptable")
        problem(await client.get("/predict"), 405, "method_not_allowed")
        assert (await client.post("/v2/models/tiny/infer", content=b"{")).status_code == 400
        counts = await samples(client)
    assert rejected(counts) == {}


async def test_an_image_without_an_answer_is_counted_once_on_every_route(models: Path) -> None:
    async with serve(models) as client:
        problem(await predict(client, b"text"), 415, "unsupported_image_type")
        problem(await client.post("/explain", files={"image": b"text"}), 415, "unsupported_image_type")
        files = [("image", data) for data in (b"text", png(), b"", b"text")]
        assert (await client.post("/predict/batch", files=files)).status_code == 200
        assert (await infer(client, b"text")).status_code == 415
        tensor = {"name": "slice", "shape": [1, 1, 64, 64], "datatype": "UINT8", "data": [2] * 4096}
        assert (await client.post("/v2/models/tiny/infer", json={"inputs": [tensor]})).status_code == 422
        counts = await samples(client)
    assert rejected(counts) == {"unsupported_image_type": 5, "empty_file": 1, "no_lungs": 1}


async def test_a_fault_within_a_batch_that_answers_200_is_counted_from_0_on(models: Path) -> None:
    predictor = load(Settings(models_dir=models, device="cpu"))
    healthy = predictor._network

    def failing_for_dark(slices: torch.Tensor) -> dict[str, torch.Tensor]:
        if slices.float().mean() < 100:
            raise ValueError("boom")
        return healthy(slices)

    predictor._network = failing_for_dark
    async with serve(models, predictor) as client:
        before = await samples(client)
        response = await client.post("/predict/batch", files=[("image", png(60)), ("image", png(220))])
        after = await samples(client)
    assert response.status_code == 200
    assert "boom" not in response.text
    problems = [result["problem"] and result["problem"]["code"] for result in response.json()["results"]]
    assert problems == ["internal_error", None]
    key = labelled("covidct_rejected_images_total", reason="internal_error")
    assert (before[key], after[key]) == (0, 1)


async def test_a_picture_that_failed_a_check_is_in_no_histogram_even_if_it_is_answered(models: Path) -> None:
    """The reference of drift has slices; the numbers of other pictures mean nothing."""
    async with serve(models, out_of_distribution="flag") as client:
        for level in (2, 255, 200):
            assert (await predict(client, png(level))).status_code == 200
        counts = await samples(client)
    assert counts[labelled("covidct_predictions_total", label="none")] == 2
    assert counts[labelled("covidct_ood_flags_total")] == 2
    assert counts[labelled("covidct_probability_count")] == 1
    assert counts[labelled("covidct_lung_involvement_count")] == 1


async def test_references_of_drift_have_the_bounds_of_the_histograms_and_go_with_their_model(tmp_path: Path) -> None:
    """The rules compare samples whose `le` and `up_to` are equal as text."""
    write_models(tmp_path)
    manifest = tmp_path / "metrics.json"
    plain, shipped = json.loads(manifest.read_text()), json.loads((ROOT / "models" / "metrics.json").read_text())
    references = ("probability", "lung_involvement")
    manifest.write_text(json.dumps(plain | {f"{name}_shares": shipped[f"{name}_shares"] for name in references}))
    async with serve(tmp_path) as client:
        first = await samples(client)
        manifest.write_text(json.dumps(plain))
        assert await reload(client)
        second = await samples(client)
    for name in references:
        bounds = [dict(labels)["le"] for each, labels in first if each == f"covidct_{name}_bucket"]
        given = {
            dict(labels)["up_to"]: share
            for (each, labels), share in first.items()
            if each == f"covidct_{name}_reference_ratio"
        }
        assert given.keys() == set(bounds) - {"+Inf"}
        assert list(given.values()) == sorted(given.values())
        assert given["1.0"] == 1
        assert not [each for each, _ in second if each == f"covidct_{name}_reference_ratio"]
