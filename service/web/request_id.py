"""Id of a request, in its log line and its response."""

from typing import Final

from starlette.types import Scope

REQUEST_ID_HEADER: Final = "X-Request-ID"


def request_id_of(scope: Scope) -> str:
    """Return the id that the request context middleware set."""
    return str(scope["covidct.request_id"])
