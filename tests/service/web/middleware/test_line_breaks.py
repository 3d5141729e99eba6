from pathlib import Path

import pytest

from tests.support.processes.client import serve

pytestmark = pytest.mark.anyio

PATHS = ["/metrics", "/health/live", "/model", "/", "/docs", "/v2", "/v2/models/tiny", "/page/app.js"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("ending", ["%0a", "%0a%0a", "%0d%0a"])
async def test_a_path_that_ends_in_a_line_break_is_no_route(models: Path, path: str, ending: str) -> None:
    async with serve(models) as client:
        assert (await client.get(path + ending)).status_code == 404


@pytest.mark.parametrize("path", ["/predict%0a", "/explain%0a", "/v2/models/tiny/infer%0a"])
async def test_neither_is_one_that_takes_images(models: Path, path: str) -> None:
    async with serve(models) as client:
        assert (await client.post(path, content=b"")).status_code == 404
