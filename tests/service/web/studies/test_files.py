import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from service.api_study import ResultFile
from service.web.studies.files import study_zip


@pytest.mark.anyio
async def test_a_zip_that_is_cancelled_builds_no_more_files(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def endless(*_: object) -> Iterator[ResultFile]:
        while True:
            names.append(f"{len(names)}.dcm")
            yield ResultFile(series=0, name=names[-1], content=b"content")

    monkeypatch.setattr("service.study_results.study_files", endless)
    answer: Any = SimpleNamespace(model_dump_json=lambda **_: "{}")
    model: Any = SimpleNamespace(card=None, predictor=SimpleNamespace(sha256=""))
    study: Any = None
    point: Any = None
    building = asyncio.create_task(study_zip(study, answer, model, point))
    async with asyncio.timeout(30):
        while len(names) < 3:  # noqa: ASYNC110 - a thread makes it true
            await asyncio.sleep(0.01)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    count = len(names)
    await asyncio.sleep(0.1)
    assert len(names) <= count + 1  # the one that was being built
