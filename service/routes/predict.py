"""POST /predict: the probability for one slice."""

from typing import Final

from fastapi import APIRouter, Request

from service.context import request_id_of
from service.disclaimer import DISCLAIMER
from service.inference import Stages, examine, prediction_body, unless_client_leaves
from service.problems import documented
from service.schemas import PredictionBody
from service.serving import Ready
from service.upload import OPENAPI_BODY, read_upload

PATH: Final = "/predict"

router = APIRouter()


@router.post(
    PATH,
    summary="Probability of COVID-19 for one slice",
    description=f"Takes one image in the multipart field `image`. {DISCLAIMER}",
    openapi_extra=OPENAPI_BODY,
    responses=documented(400, 401, 408, 413, 415, 422, 500, 503, 504),
)
async def predict(request: Request, serving: Ready) -> PredictionBody:
    """Read, decode, queue, infer."""
    stages = Stages(serving.metrics)
    data = await read_upload(request)
    stages.end("read")
    with serving.model() as model:
        finding = await unless_client_leaves(request, examine(data, model, serving, stages))
        return prediction_body(finding, model, request_id_of(request.scope), stages)
