"""Dependencies of the routes: state of the service, its model, API key, query parameters."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from service.errors import MalformedRequestError
from service.inference.served_model import ServedModel
from service.inference.service_state import ServiceState
from service.web.api_keys import API_KEY_HEADER


def state_of(app: FastAPI) -> ServiceState:
    """Return the application's state, with or without a model."""
    state = app.state.service
    assert isinstance(state, ServiceState)  # noqa: S101 - create_app puts it there
    return state


async def service_state(request: Request) -> ServiceState:
    """Return the state of the request's application."""
    return state_of(request.app)


AnyState = Annotated[ServiceState, Depends(service_state)]


async def served_model(state: AnyState) -> AsyncIterator[ServedModel]:
    """Give the current model, kept until the answer is sent; 503 if no model is ready."""
    with state.model() as model:
        yield model


CurrentModel = Annotated[ServedModel, Depends(served_model)]

_header = APIKeyHeader(name=API_KEY_HEADER, auto_error=False, description="required if the service has API keys")
_bearer = HTTPBearer(auto_error=False, description="the same key, as a bearer token")


async def require_key(
    request: Request,
    header: Annotated[str | None, Depends(_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Require a known API key, if the service has keys."""
    request.app.state.api_keys.admit(header or (bearer.credentials if bearer else None))


async def known_query(request: Request) -> None:
    """Refuse query parameters that the route does not have or that are repeated: FastAPI would ignore them silently.

    Its query models refuse unknown names, but take the last value of a repeated one.
    """
    route = request.scope["route"]
    assert isinstance(route, APIRoute)  # noqa: S101 - the routes that this dependency is added to
    known = [field.alias for field in route.dependant.query_params]
    for name in request.query_params:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise MalformedRequestError(f"The route has no query parameter {name[:40]!r}; {takes}.")
        if len(request.query_params.getlist(name)) > 1:
            raise MalformedRequestError(f"The query parameter {name!r} is there several times; send it once.")


PointName = Annotated[
    str | None,
    Query(
        alias="operating_point",
        description="operating point of the model's card that gives the label, such as `screening`; default: that of "
        "the service's settings",
    ),
]
