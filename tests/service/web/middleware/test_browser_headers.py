from pathlib import Path

import pytest

from tests.support.processes.client import predict, serve

pytestmark = pytest.mark.anyio


async def test_every_answer_tells_browsers_to_run_frame_and_keep_nothing(models: Path) -> None:
    async with serve(models) as client:
        answers = [await client.get(path) for path in ("/model", "/nowhere", "/metrics")]
        answers.append(await predict(client, b"no image"))
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
