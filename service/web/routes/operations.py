"""Routes for operators and their tools: metrics, health, the model card."""

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse

from service.api import Health, ModelInfo, PublicCard
from service.errors import NotReadyError
from service.metrics import CONTENT_TYPE
from service.web.dependencies import AnyState, CurrentModel, known_query
from service.web.openapi.document import OPERATIONS
from service.web.openapi.problem_examples import documented

router = APIRouter(tags=[OPERATIONS])


@router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(state: AnyState) -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(state.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


@router.get("/health/live", summary="Liveness probe", responses=documented(503))
async def live(state: AnyState) -> Health:
    """503 if the service can no longer predict; only a restart helps then."""
    if state.is_loaded and not state.is_healthy:
        raise NotReadyError("The model no longer works; restart the service.")
    return Health(status="ok")


@router.get(
    "/health/ready",
    summary="Readiness probe",
    responses=documented(503),
)
async def ready(state: AnyState) -> Health:
    """200 if the model has passed its self-check and the service is not draining."""
    if not state.is_ready:
        raise NotReadyError("The service is not ready; send requests elsewhere or try again.", retry_after_seconds=1)
    return Health(status="ok")


@router.get("/model", summary="Model card", responses=documented(400, 503), dependencies=[Depends(known_query)])
async def model(served: CurrentModel) -> ModelInfo:
    """Return the served model's card, device and precision."""
    predictor = served.predictor
    return ModelInfo(
        card=PublicCard.model_validate(predictor.card.model_dump()),
        sha256=predictor.sha256,
        device=predictor.device.type,
        precision=predictor.precision,
        precision_milliseconds=dict(predictor.choice.milliseconds),
        operating_point=served.operating_point.name,
        agreement=predictor.choice.agreement,
    )
