"""What operators and their tools ask: metrics, health, the model's card."""

from fastapi import APIRouter, Response

from service.errors import OverloadedError
from service.metrics import CONTENT_TYPE
from service.problems import documented
from service.schemas import Health, ModelBody, PublicCard
from service.serving import AnyServing, Ready

router = APIRouter()


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(serving: AnyServing) -> Response:
    """Prometheus' text format."""
    return Response(serving.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


@router.get("/health/live", summary="Should the process be left running", responses=documented(503))
async def live(serving: AnyServing) -> Health:
    """No, if its worker died or hangs: only a restart helps then."""
    if serving.started and not serving.healthy:
        raise OverloadedError("The worker no longer answers; restart the service.", code="not_ready", title="Not ready")
    return Health(status="ok")


@router.get(
    "/health/ready",
    summary="Does it answer predictions",
    responses=documented(503),
)
async def ready(serving: AnyServing) -> Health:
    """The model is loaded, has passed its self-check, and the service is not about to end."""
    if not serving.ready:
        raise OverloadedError(
            "No requests should be sent here now.", code="not_ready", title="Not ready", retry_after_seconds=1
        )
    return Health(status="ok")


@router.get("/model", summary="The model's card", responses=documented(503))
async def model(serving: Ready) -> ModelBody:
    """What is served, on what, and in what precision."""
    with serving.model() as served:
        predictor = served.predictor
        return ModelBody(
            card=PublicCard.model_validate(predictor.card.model_dump()),
            sha256=predictor.sha256,
            device=predictor.device.type,
            precision=predictor.precision,
        )
