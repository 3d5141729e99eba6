"""Files of web pages, with a content security policy that allows nothing from other hosts."""

from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path, PurePath
from typing import Final

from fastapi import Response

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Nothing from other hosts and nothing inline, so that a file name or a response cannot become code."""

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".dcm": "application/dicom",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def static_file(folder: Traversable, name: str) -> Response:
    """Return the file `name` of a package's folder.

    Args:
        folder: of the package.
        name: one of its known files, never an unchecked name from a client.
    """
    suffix = PurePath(name).suffix
    headers = {"Content-Security-Policy": _POLICY, "Content-Type": _TYPES[suffix]}
    if suffix != ".html":
        headers["Cache-Control"] = "no-cache"
    return Response(_content(str(folder / name)), headers=headers)


@cache
def _content(path: str) -> bytes:
    """Read a file once, so that answers that nobody reads hold its bytes once."""
    return Path(path).read_bytes()
