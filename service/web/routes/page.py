"""GET /: the web page and its files."""

from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Response
from fastapi.exceptions import HTTPException

from service.web.static_files import static_file

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index() -> Response:
    """Return the page."""
    return static_file(_folder(), "index.html")


@router.get("/page/{name}")
async def file(name: str) -> Response:
    """Return one of the page's files."""
    if name not in {entry.name for entry in _folder().iterdir()}:
        raise HTTPException(404)
    return static_file(_folder(), name)


def _folder() -> Traversable:
    return files("service.web") / "page"
