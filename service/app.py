"""The application: its life, its routes, and nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from service.batcher import Answer, Batcher, ClosedError, QueueFullError
from service.context import RequestContext, request_id_of
from service.errors import ClientGoneError, OverloadedError, UnusableImageError
from service.image import Limits as ImageLimits
from service.image import Slice, decode, to_input
from service.limits import Limits, RequestLimits
from service.metrics import CONTENT_TYPE, Metrics
from service.predictor import Prediction, Predictor, load_predictor
from service.problems import documented, install_problem_handlers
from service.schemas import DISCLAIMER, Health, ModelBody, ModelName, OutOfDistribution, PredictionBody, Timings
from service.settings import Settings
from service.upload import OPENAPI_BODY, read_upload

PREDICT_PATH: Final = "/predict"

_CLOSE_SECONDS: Final = 5.0
"""For the batch that is running; by then the web server has answered or given up every request in flight."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Serving:
    """What the routes work with, from the start of the application to its end."""

    settings: Settings
    metrics: Metrics
    predictor: Predictor
    batcher: Batcher[Slice, Prediction]


def create_app(settings: Settings, predictor: Predictor | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: what the operator chose.
        predictor: a loaded model; None loads the settings' one when the application starts.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loaded = predictor if predictor is not None else await asyncio.to_thread(load_predictor, settings)
        batcher = _make_batcher(loaded, metrics, settings)
        batcher.start()
        app.state.serving = Serving(settings, metrics, loaded, batcher)
        metrics.show_model(loaded)
        metrics.ready.set_function(lambda: _is_healthy(app.state.serving))  # asked at each scrape: can't go stale
        try:
            yield
        finally:
            app.state.serving = None
            await batcher.close(_CLOSE_SECONDS)
            loaded.close()

    app = FastAPI(
        title="COVID-CT inference service",
        description=f"**{DISCLAIMER}** A chest CT slice in, the probability of COVID-19 out.",
        version="1",
        lifespan=lifespan,
    )
    app.state.serving = None
    app.state.metrics = metrics
    app.include_router(_router)
    install_problem_handlers(app)
    limits = RequestLimits(settings.max_body_bytes, settings.request_timeout_seconds, settings.max_concurrent_requests)
    app.add_middleware(Limits, limits=limits, guarded={PREDICT_PATH})
    app.add_middleware(RequestContext, metrics=metrics, image_routes={PREDICT_PATH})  # added last, so outermost
    return app


def _make_batcher(predictor: Predictor, metrics: Metrics, settings: Settings) -> Batcher[Slice, Prediction]:
    async def run(slices: Sequence[Slice]) -> Sequence[Prediction | Exception]:
        metrics.batch_size.observe(len(slices))
        return await predictor.predict(slices)

    batcher = Batcher(run, max_size=predictor.max_batch_size, max_waiting=settings.queue_max_length)
    metrics.queue_depth.set_function(batcher.waiting)
    return batcher


def _serving(request: Request) -> Serving:
    """The loaded service, or a 503 while there is none."""
    serving = request.app.state.serving
    if not isinstance(serving, Serving) or not _is_healthy(serving):
        raise OverloadedError(
            "There is no model that answers now.", code="not_ready", title="Not ready", retry_after_seconds=1
        )
    return serving


def _is_healthy(serving: Serving | None) -> bool:
    """Whether slices get answers: the worker lives, and its batch is not stuck."""
    if serving is None:
        return False
    batcher, stuck_after = serving.batcher, serving.settings.request_timeout_seconds
    return batcher.alive and batcher.running_seconds < stuck_after


Ready = Annotated[Serving, Depends(_serving)]
_router = APIRouter()


@_router.post(
    PREDICT_PATH,
    summary="Probability of COVID-19 for one slice",
    description=f"Takes one image in the multipart field `image`. {DISCLAIMER}",
    openapi_extra=OPENAPI_BODY,
    responses=documented(400, 413, 415, 422, 500, 503, 504),
)
async def predict(request: Request, serving: Ready) -> PredictionBody:
    """Read, decode, queue, infer."""
    stages = _Stages(serving.metrics)
    data = await read_upload(request)
    stages.end("read")
    ct_slice = await asyncio.to_thread(_to_input, data, serving)
    stages.end("decode")
    answer = await _unless_client_leaves(request, _infer(serving, ct_slice))
    stages.record("queue", answer.queue_seconds)
    stages.record("inference", answer.run_seconds)
    return _body(request_id_of(request.scope), answer.result, serving, stages)


@_router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(request.app.state.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


@_router.get("/health/live", summary="Should the process be left running", responses=documented(503))
async def live(request: Request) -> Health:
    """No, if its worker died or hangs: only a restart helps then."""
    serving = request.app.state.serving
    if serving is not None and not _is_healthy(serving):
        raise OverloadedError("The worker no longer answers; restart the service.", code="not_ready", title="Not ready")
    return Health(status="ok")


@_router.get(
    "/health/ready",
    summary="Does it answer predictions",
    responses=documented(503),
    dependencies=[Depends(_serving)],
)
async def ready() -> Health:
    """The model is loaded and has passed its self-check."""
    return Health(status="ok")


@_router.get("/model", summary="The model's card", responses=documented(503))
async def model(serving: Ready) -> ModelBody:
    """What is served, on what, and in what precision."""
    predictor = serving.predictor
    return ModelBody(
        card=predictor.card, sha256=predictor.sha256, device=predictor.device.type, precision=predictor.precision
    )


@_router.get("/", include_in_schema=False)
async def index() -> RedirectResponse:
    """To the interactive documentation."""
    return RedirectResponse("/docs")


class _Stages:
    """Milliseconds by stage, for the answer, and seconds, for the histogram."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._since = time.perf_counter()
        self.milliseconds: dict[str, float] = {}

    def end(self, stage: str) -> None:
        """The stage ends now; it began where the last one ended."""
        now = time.perf_counter()
        self.record(stage, now - self._since)
        self._since = now

    def record(self, stage: str, seconds: float) -> None:
        """A stage that was timed elsewhere."""
        self._metrics.stage_seconds.labels(stage=stage).observe(seconds)
        self.milliseconds[stage] = round(seconds * 1000, 3)


def _to_input(data: bytes, serving: Serving) -> Slice:
    ct_slice = decode(data, ImageLimits(max_pixels=serving.settings.max_pixels))
    return to_input(ct_slice, serving.predictor.card.input_size)


async def _unless_client_leaves(request: Request, work: Coroutine[None, None, R]) -> R:
    """Wait for `work`, but drop it if the client closes its connection first: nobody would read the answer."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_client_leaves(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError("The client left before its answer was ready.")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _infer(serving: Serving, ct_slice: Slice) -> Answer[Prediction]:
    try:
        return await serving.batcher.submit(ct_slice)
    except QueueFullError:
        raise OverloadedError("The queue is full; try again.", code="queue_full", retry_after_seconds=1) from None
    except ClosedError:
        raise OverloadedError("The service is shutting down.", code="shutting_down", retry_after_seconds=5) from None


def _body(request_id: str, prediction: Prediction, serving: Serving, stages: _Stages) -> PredictionBody:
    """Judge the prediction by the card's thresholds, count it, and write it down."""
    card, metrics = serving.predictor.card, serving.metrics
    flagged = prediction.ood_score > card.ood_threshold
    if flagged:
        metrics.ood_flags.inc()
    if flagged and serving.settings.out_of_distribution == "refuse":
        metrics.ood_refusals.inc()
        raise UnusableImageError(
            f"This does not look like a chest CT slice: its score is {prediction.ood_score:.2f}, and the limit is "
            f"{card.ood_threshold:.2f}. Send one axial chest CT slice.",
            code="not_a_chest_ct",
        )
    other = card.labels[1 - card.labels.index(card.positive_label)]
    label = card.positive_label if prediction.probability >= card.threshold else other
    metrics.predictions.labels(label=label).inc()
    metrics.probability.observe(prediction.probability)
    return PredictionBody(
        request_id=request_id,
        probability=prediction.probability,
        label=label,
        threshold=card.threshold,
        model=ModelName(name=card.name, version=card.version),
        out_of_distribution=OutOfDistribution(
            score=prediction.ood_score, threshold=card.ood_threshold, flagged=flagged
        ),
        timings_milliseconds=Timings(**stages.milliseconds),
    )
