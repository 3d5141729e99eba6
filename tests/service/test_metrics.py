from pathlib import Path

import pytest

from tests.support.processes.client import labelled, png, predict, samples, serve

pytestmark = pytest.mark.anyio


async def test_unknown_paths_and_methods_share_one_label(models: Path) -> None:
    async with serve(models) as client:
        for name in ("a", "b", "c"):
            await client.request(name.upper() * 3, f"/{name}")
        counts = await samples(client)
    routes = {dict(labels)["route"] for name, labels in counts if name == "covidct_requests_total"}
    methods = {dict(labels)["method"] for name, labels in counts if name == "covidct_requests_total"}
    assert len(routes - {"/metrics"}) == 1
    assert methods <= {"other", "GET"}


async def test_metrics_are_what_happened(models: Path) -> None:
    async with serve(models) as client:
        for level in (60, 220, 220):
            assert (await predict(client, png(level))).status_code == 200
        counts = await samples(client)
    assert counts[labelled("covidct_requests_total", route="/predict", method="POST", status="200")] == 3
    assert counts[labelled("covidct_predictions_total", label="COVID")] == 2
    assert counts[labelled("covidct_predictions_total", label="NonCOVID")] == 1
    assert counts[labelled("covidct_probability_count")] == 3
    assert counts[labelled("covidct_probability_bucket", le="0.5")] == 1
    assert counts[labelled("covidct_batch_size_sum")] == 3
    assert counts[labelled("covidct_queue_depth")] == 0
    assert counts[labelled("covidct_ready")] == 1
    assert counts[labelled("covidct_request_duration_seconds_count", route="/predict")] == 3
    for stage in ("read", "decode", "queue", "inference"):
        assert counts[labelled("covidct_stage_duration_seconds_count", stage=stage)] == 3
    (info,) = [dict(labels) for name, labels in counts if name == "covidct_model_info"]
    assert (info["name"], info["version"], info["device"]) == ("tiny", "0.0.1", "cpu")
    assert len(info["sha256"]) == 64
    assert any(name == "process_resident_memory_bytes" for name, _ in counts)
