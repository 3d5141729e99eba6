"""One version for package, OpenAPI document, V2 server and images; the model has its own."""

import asyncio
import re
import tomllib
from pathlib import Path

from service import __version__
from service.settings import Settings
from service.web.app import create_app
from service.web.v2.routes import server_metadata

ROOT = Path(__file__).parents[2]


def test_package_openapi_and_v2_state_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    source = (ROOT / project["tool"]["hatch"]["version"]["path"]).read_text()
    # hatch reads the file without Python and takes no other annotation; else no installation succeeds
    assert re.findall(r"^__version__ *= *\"(.+)\"$", source, flags=re.MULTILINE) == [__version__]
    assert create_app(Settings()).openapi()["info"]["version"] == __version__
    assert asyncio.run(server_metadata()).version == __version__


def test_the_image_has_the_version_of_the_package() -> None:
    text = (ROOT / "docker" / "service.Dockerfile").read_text()
    assert re.findall(r"^ARG VERSION=(.*)$", text, flags=re.MULTILINE) == [__version__]
