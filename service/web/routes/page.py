"""GET /: the web page and its files."""

from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Response
from fastapi.exceptions import HTTPException

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Nothing from outside and nothing inline, so that a file name or an answer can't become code."""

_TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(
        (
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
        ),
        "text/javascript; charset=utf-8",
    ),
}
"""All served files; other names are not looked up."""

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index() -> Response:
    """Return the page."""
    return _file("index.html")


@router.get("/page/{name}")
async def file(name: str) -> Response:
    """Return one of the page's files."""
    if name not in _TYPES:
        raise HTTPException(404)
    return _file(name)


def _file(name: str) -> Response:
    headers = {"Content-Security-Policy": _POLICY, "Content-Type": _TYPES[name]}
    if name != "index.html":
        headers["Cache-Control"] = "no-cache"
    return Response((files("service.web") / "page" / name).read_bytes(), headers=headers)
