import re
from pathlib import Path

import pytest

from service.web.routes import docs
from tests.support.processes.client import problem, serve

pytestmark = pytest.mark.anyio

FOLDER = Path(docs.__file__).parents[1] / "docs"


async def test_the_page_and_its_files_come_from_here_under_the_policy_of_the_web_page(models: Path) -> None:
    async with serve(models) as client:
        policy = (await client.get("/")).headers["content-security-policy"]
        page = await client.get("/docs")
        parts = re.findall(r'(?:href|src)="([^"]+)"', page.text)
        assert {"docs/start.js", "docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "openapi.json"} <= set(parts)
        for part in parts:
            answer = await client.get(f"/{part}")  # as a browser resolves it at /docs
            assert answer.status_code == 200, part
            if part != "openapi.json":
                assert answer.headers["content-security-policy"] == policy
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == policy
    assert "unsafe-inline" not in policy


async def test_no_other_file_is_served(models: Path) -> None:
    async with serve(models) as client:
        for name in ("index.html", "__init__.py", "..%2Fapp.py", "%2e%2e/settings.py"):
            problem(await client.get(f"/docs/{name}"), 404, "not_found")


def test_nothing_of_the_page_is_inline_or_comes_from_elsewhere() -> None:
    markup = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|style=|<script(?![^>]*src=)| on[a-z]+=", markup)
    for path in FOLDER.iterdir():
        assert not re.search(r"https?:|//[a-z]+\.", path.read_text()), path.name
