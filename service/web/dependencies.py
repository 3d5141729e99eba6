"""Dependencies of the routes: the service's state, and the check of the API key."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from service.inference.service_state import ServiceState
from service.web.api_keys import API_KEY_HEADER


async def service_state(request: Request) -> ServiceState:
    """Give the application's state, with or without a model."""
    state = request.app.state.service
    assert isinstance(state, ServiceState)  # noqa: S101 - create_app puts it there
    return state


AnyState = Annotated[ServiceState, Depends(service_state)]


async def ready_state(state: AnyState) -> ServiceState:
    """Give the application's state; answer 503 while no model answers."""
    with state.model():
        return state


ReadyState = Annotated[ServiceState, Depends(ready_state)]

_header = APIKeyHeader(name=API_KEY_HEADER, auto_error=False, description="required if the service has API keys")
_bearer = HTTPBearer(auto_error=False, description="the same key, as a bearer token")


async def require_key(
    request: Request,
    header: Annotated[str | None, Depends(_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Require a known key, if the service has keys."""
    request.app.state.api_keys.admit(header or (bearer.credentials if bearer else None))
