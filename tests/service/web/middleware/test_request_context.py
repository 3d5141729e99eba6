import json
import logging
import re
from pathlib import Path

import pytest

from tests.support.processes.client import png, serve

pytestmark = pytest.mark.anyio


async def test_request_ids_are_echoed_if_harmless_and_made_otherwise(models: Path) -> None:
    async with serve(models) as client:
        echoed = await client.get("/health/live", headers={"X-Request-ID": "client-7"})
        made = [await client.get("/health/live", headers={"X-Request-ID": bad}) for bad in ("a b", "x" * 65, '{"a":1}')]
    assert echoed.headers["x-request-id"] == "client-7"
    assert all(re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"]) for answer in made)


async def test_every_request_is_one_log_line_without_the_file_name(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serve(models) as client:
        files = {"image": ("patient-name.png", png(), "image/png")}
        response = await client.post("/predict", files=files)
    (line,) = [record for record in caplog.records if getattr(record, "fields", {}).get("route") == "/predict"]
    fields = line.fields  # type: ignore[attr-defined]
    assert fields["status"] == 200
    assert fields["bytes"] == int(response.request.headers["content-length"])
    assert fields["request_id"] == response.headers["x-request-id"]
    assert "patient-name" not in caplog.text
    assert "patient-name" not in json.dumps(fields)
