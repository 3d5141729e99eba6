"""GET /openapi.json and GET /docs: the description of the API, shown by Swagger UI."""

from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse

from service.web.static_files import static_file

_PACKAGE_OF: Final = {
    "start.js": ("service.web", "docs"),
    "swagger-ui.css": ("fastapi_swagger", "resources"),
    "swagger-ui-bundle.js": ("fastapi_swagger", "resources"),
}
"""Package and folder of each served file. Of fastapi_swagger only these files are used: they are Swagger UI itself."""

router = APIRouter(include_in_schema=False)


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """Return the OpenAPI document."""
    return JSONResponse(request.app.openapi())


@router.get("/docs")
async def docs() -> Response:
    """Return the page that shows the document."""
    return static_file(files("service.web") / "docs", "index.html")


@router.get("/docs/{name}")
async def file(name: str) -> Response:
    """Return one of that page's files."""
    if name not in _PACKAGE_OF:
        raise HTTPException(404)
    package, folder = _PACKAGE_OF[name]
    return static_file(files(package) / folder, name)
