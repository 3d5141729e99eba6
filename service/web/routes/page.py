"""GET /: the web page and its files."""

from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Response
from fastapi.exceptions import HTTPException

from service.web.static_files import static_file

_FILES: Final = frozenset(
    (
        "index.html",
        "style.css",
        "icon.svg",
        "app.js",
        "dicom.js",
        "element.js",
        "export.js",
        "histogram.js",
        "intake.js",
        "map.js",
        "queue.js",
        "results.js",
        "service.js",
        "viewer.js",
        "wording.js",
        "zip.js",
    )
)
"""Names of all served files; others are a 404."""

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index() -> Response:
    """Return the page."""
    return static_file(files("service.web") / "page", "index.html")


@router.get("/page/{name}")
async def file(name: str) -> Response:
    """Return one of the page's files."""
    if name not in _FILES:
        raise HTTPException(404)
    return static_file(files("service.web") / "page", name)
