"""The id of a request, in its log line and in its answer."""

from typing import Final

from starlette.types import Scope

REQUEST_ID_HEADER: Final = "X-Request-ID"


def request_id_of(scope: Scope) -> str:
    """Return the id that the request context middleware gave to the request."""
    return str(scope["covidct.request_id"])
