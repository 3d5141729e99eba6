import json
import re
from pathlib import Path

import pytest

from service.imaging import overlay
from service.web.routes import page
from tests.support.processes.client import problem, serve

pytestmark = pytest.mark.anyio

FOLDER = Path(page.__file__).parents[1] / "page"


async def test_the_root_is_the_page_under_a_policy_that_lets_nothing_in(models: Path) -> None:
    async with serve(models) as client:
        response = await client.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "Research use only" in response.text


async def test_every_file_is_served_with_its_type_and_no_other_is(models: Path) -> None:
    async with serve(models) as client:
        for path in FOLDER.iterdir():
            response = await client.get(f"/page/{path.name}")
            assert (response.status_code, response.content) == (200, path.read_bytes()), path.name
            assert "default-src 'none'" in response.headers["content-security-policy"]
        for name in ("none.js", "..%2Fapp.py", "%2e%2e/settings.py"):
            problem(await client.get(f"/page/{name}"), 404, "not_found")


def test_nothing_of_it_comes_from_elsewhere_or_is_inline() -> None:
    for path in (path for path in FOLDER.iterdir() if path.suffix not in (".dcm", ".jpg")):
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.", text), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), path.name
    markup = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|style=|<script(?![^>]*src=)| on[a-z]+=", markup)


def test_the_page_draws_maps_like_the_service() -> None:
    script = (FOLDER / "map.js").read_text()
    match = re.search(r"COLOURS = (\[\[.*?\]\]);", script)
    assert match is not None
    assert tuple(map(tuple, json.loads(match[1]))) == overlay._COLOURS
    for name, value in (
        ("CONTOUR_VALUE", overlay.CONTOUR_VALUE),
        ("LUNG_VALUE", overlay._LUNG_VALUE),
        ("MAX_OPACITY", overlay._MAX_OPACITY),
    ):
        assert f"const {name} = {value:g};" in script
    for name, colour in (("CONTOUR", overlay._CONTOUR), ("OUTLINE", overlay._OUTLINE)):
        assert f'const {name} = "rgb{colour}";' in script
