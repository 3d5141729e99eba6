"""Builds the FastAPI application: routes, middleware, startup, reload and shutdown."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from service import DISCLAIMER, __version__
from service.api import Problem
from service.imaging.cage.fork_server import ForkServer
from service.inference.service_state import ServiceState, load
from service.metrics import Metrics, ReloadPart
from service.model.predictor import Predictor
from service.settings import Settings, comma_separated
from service.web.api_keys import API_KEY_HEADER, ApiKeys
from service.web.dependencies import known_query, require_key, state_of
from service.web.middleware.browser_headers import BrowserHeadersMiddleware
from service.web.middleware.cross_site import CrossSiteMiddleware
from service.web.middleware.failures import FailuresMiddleware
from service.web.middleware.head_requests import HeadRequestsMiddleware
from service.web.middleware.host_check import HostCheckMiddleware
from service.web.middleware.line_breaks import LineBreaksMiddleware
from service.web.middleware.request_context import RequestContextMiddleware
from service.web.middleware.request_limits import RequestLimits, RequestLimitsMiddleware
from service.web.openapi.document import TAGS, DescribedApp
from service.web.path_templates import PathTemplates
from service.web.problems import install_problem_handlers
from service.web.request_id import REQUEST_ID_HEADER
from service.web.routes import batch, docs, explain, operations, page, predict, study
from service.web.v2 import routes as v2

_SLICE_PATHS: Final = (predict.PATH, batch.PATH, explain.PATH, *v2.PATHS)

SLICE_ROUTES: Final = PathTemplates(*_SLICE_PATHS)
"""Routes that take slices: their size, time and number are limited, and refused images are counted."""

STUDY_ROUTES: Final = PathTemplates(study.PATH)
"""Routes that take studies, with their own limits."""

IMAGE_ROUTES: Final = PathTemplates(*_SLICE_PATHS, study.PATH)
"""Routes matched before routing, for metrics and logs."""

_STUDY_END_SECONDS: Final = 5.0
"""Seconds for the last line after the deadline of a study."""

T = TypeVar("T")

_log = logging.getLogger("covidct")


def create_app(
    settings: Settings, predictor: Predictor | None = None, fork_server: ForkServer | None = None
) -> FastAPI:
    """Build the application.

    Args:
        settings: the operator's settings.
        predictor: a loaded model; None loads the model of the settings at startup.
        fork_server: starts decoders, and is closed by the caller; None starts one with the application.

    Raises:
        KeysError: the API keys are unusable.
    """
    metrics = Metrics()
    state = ServiceState(settings, metrics, fork_server)
    api_keys = ApiKeys(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await state.start(predictor)
        try:
            yield
        finally:
            await state.stop()

    app = DescribedApp(
        bodies=(Problem, *v2.BODIES),
        title="COVID-CT inference service",
        description=f"**{DISCLAIMER}** Probability of COVID-19 for chest CT slices.",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect would name the Host header and plain HTTP, also behind a proxy with TLS
        openapi_tags=[*TAGS, v2.TAG],
        openapi_url=None,  # routes.docs has it
        servers=[{"url": "."}],  # so that the document is found behind a path prefix
    )
    app.state.service = state
    app.state.api_keys = api_keys
    for router in (predict.router, batch.router, explain.router, study.router):
        app.include_router(router, dependencies=[Depends(require_key), Depends(known_query)])
    app.include_router(v2.router, dependencies=[Depends(known_query)])
    app.include_router(operations.router)
    app.include_router(page.router)
    if settings.docs:
        app.include_router(docs.router)
    install_problem_handlers(app)
    _add_middleware(app, settings, metrics)
    return app


async def reload_keys(app: FastAPI) -> bool:
    """Read the API keys again, and return whether they were replaced; unusable ones leave the previous ones in use."""
    state = state_of(app)
    api_keys = await _read_again("keys", partial(ApiKeys, state.settings), state.metrics)
    if api_keys is not None:
        app.state.api_keys = api_keys
    return api_keys is not None


async def reload_model(app: FastAPI) -> bool:
    """Load the model again, and return whether it was replaced; an unusable one leaves the previous one in use.

    Running requests keep the previous model.
    """
    state = state_of(app)
    predictor = await _read_again("model", partial(load, state.settings), state.metrics)
    if predictor is not None:
        state.take(predictor)
        _log.info("model taken", extra={"fields": predictor.description})
    return predictor is not None


async def _read_again(part: ReloadPart, read: Callable[[], T], metrics: Metrics) -> T | None:
    try:
        result = await asyncio.to_thread(read)
    except Exception:  # noqa: BLE001 - whatever it is, the service continues with what it has
        metrics.reloads.labels(part=part, outcome="failure").inc()
        _log.exception("reload failed; the previous one stays in use", extra={"fields": {"part": part}})
        return None
    metrics.reloads.labels(part=part, outcome="success").inc()
    _log.info("reloaded", extra={"fields": {"part": part}})
    return result


def _study_limits(settings: Settings) -> RequestLimits:
    """Return the limits of a study; the route itself ends at the deadline, so that the last line reports it."""
    return RequestLimits(
        max_body_bytes=settings.max_study_bytes,
        receive_seconds=settings.study_timeout_seconds,
        timeout_seconds=settings.study_timeout_seconds + _STUDY_END_SECONDS,
        max_concurrent=settings.max_concurrent_studies,
    )


def _add_middleware(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Add the middleware, from the innermost to the outermost."""
    app.add_middleware(HeadRequestsMiddleware)
    origins = comma_separated(settings.cors_origins)
    app.add_middleware(CrossSiteMiddleware, origins=origins)
    app.add_middleware(HostCheckMiddleware, settings=settings)
    limits = RequestLimits(
        max_body_bytes=settings.max_body_bytes,
        receive_seconds=settings.receive_timeout_seconds,
        timeout_seconds=settings.request_timeout_seconds,
        max_concurrent=settings.max_concurrent_requests,
    )
    app.add_middleware(RequestLimitsMiddleware, limits=limits, guarded=SLICE_ROUTES)
    app.add_middleware(RequestLimitsMiddleware, limits=_study_limits(settings), guarded=STUDY_ROUTES)
    app.add_middleware(FailuresMiddleware)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=[API_KEY_HEADER, "Authorization", REQUEST_ID_HEADER],
            expose_headers=[REQUEST_ID_HEADER, "Retry-After"],
        )
    app.add_middleware(BrowserHeadersMiddleware)
    app.add_middleware(LineBreaksMiddleware)
    app.add_middleware(RequestContextMiddleware, metrics=metrics, image_routes=IMAGE_ROUTES)
