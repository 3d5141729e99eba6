"""All errors as application/problem+json (RFC 9457); below /v2 in the form of the Open Inference Protocol."""

import json
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.api import Problem
from service.errors import MalformedRequestError, ServiceError
from service.web.request_id import request_id_of

MEDIA_TYPE: Final = "application/problem+json"

_PROTOCOL: Final = "/v2/"
"""Start of the paths of the Open Inference Protocol."""

_UNREAD: Final = frozenset({401, 403, 408, 413, 431})
"""Statuses that may be sent before the whole request was read."""


def problem_response(error: ServiceError, request_id: str, path: str = "/") -> Response:
    """Build the response for `error` to a request of `path`."""
    headers = {} if error.retry_after_seconds is None else {"Retry-After": str(error.retry_after_seconds)}
    if error.status in _UNREAD:
        headers["Connection"] = "close"
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"  # required by RFC 9110, 15.5.2
    return _response(problem_body(error, request_id), headers, path)


def problem_body(error: ServiceError, request_id: str) -> Problem:
    """Build the problem document of `error`, for use inside another response."""
    return _body(error.status, error.code, error.title, error.detail, request_id)


def install_problem_handlers(app: FastAPI) -> None:
    """Register handlers that turn every error into a problem."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)


async def _on_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)  # noqa: S101 - what the handler is installed for
    request.scope["covidct.code"] = error.code
    return problem_response(error, request_id_of(request.scope), request.scope["path"])


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Turn errors of the router, 404 and 405, into problems."""
    assert isinstance(error, HTTPException)  # noqa: S101
    status = HTTPStatus(error.status_code)
    has_docs = request.app.state.service.settings.docs
    detail = {
        HTTPStatus.NOT_FOUND: "No such route; GET /docs lists all routes." if has_docs else "No such route.",
        HTTPStatus.METHOD_NOT_ALLOWED: "The route does not support this method; see the Allow header.",
    }.get(status, str(error.detail))
    problem = _body(status, status.name.lower(), status.phrase, detail, request_id_of(request.scope))
    return _response(problem, dict(error.headers or {}), request.scope["path"])


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return await _on_service_error(request, MalformedRequestError(f"{where}: {first['msg']}"))


def _response(problem: Problem, headers: dict[str, str], path: str) -> Response:
    if not f"{path}/".startswith(_PROTOCOL):
        return Response(problem.model_dump_json(), problem.status, headers, MEDIA_TYPE)
    error = {"error": problem.detail, "code": problem.code, "request_id": problem.request_id}
    return Response(json.dumps(error), problem.status, headers, "application/json")


def _body(status: int, code: str, title: str, detail: str, request_id: str) -> Problem:
    return Problem(
        type=f"urn:covidct:problem:{code}", title=title, status=status, detail=detail, code=code, request_id=request_id
    )
