"""The application: its life, and what it is put together from."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from service.context import RequestContext
from service.limits import Limits, RequestLimits
from service.metrics import Metrics
from service.paths import Templates
from service.predictor import Predictor
from service.problems import install_problem_handlers
from service.routes import operations, predict
from service.schemas import DISCLAIMER
from service.serving import Serving
from service.settings import Settings

IMAGE_ROUTES: Final = Templates(predict.PATH)
"""Routes that take images: their bytes, time and number at a time are limited, and what they refuse is counted."""


def create_app(settings: Settings, predictor: Predictor | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: what the operator chose.
        predictor: a loaded model; None loads the settings' one when the application starts.
    """
    metrics = Metrics()
    serving = Serving(settings, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await serving.start(predictor)
        try:
            yield
        finally:
            await serving.stop()

    app = FastAPI(
        title="COVID-CT inference service",
        description=f"**{DISCLAIMER}** A chest CT slice in, the probability of COVID-19 out.",
        version="1",
        lifespan=lifespan,
    )
    app.state.serving = serving
    app.include_router(predict.router)
    app.include_router(operations.router)
    app.add_api_route("/", _index, include_in_schema=False)
    install_problem_handlers(app)
    limits = RequestLimits(settings.max_body_bytes, settings.request_timeout_seconds, settings.max_concurrent_requests)
    app.add_middleware(Limits, limits=limits, guarded=IMAGE_ROUTES)
    app.add_middleware(RequestContext, metrics=metrics, image_routes=IMAGE_ROUTES)  # added last, so outermost
    return app


async def _index() -> RedirectResponse:
    """To the interactive documentation."""
    return RedirectResponse("/docs")
