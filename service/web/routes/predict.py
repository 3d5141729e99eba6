"""POST /predict: prediction for one slice."""

from typing import Final

from fastapi import APIRouter, Request

from service import DISCLAIMER
from service.api import Prediction
from service.inference.pipeline import assess_image
from service.inference.stages import StageTimer
from service.web.dependencies import AnyState, CurrentModel, PointName
from service.web.disconnect import cancel_on_disconnect
from service.web.openapi.document import PREDICTIONS
from service.web.openapi.forms import FORM_WITH_SLICE
from service.web.openapi.problem_examples import documented
from service.web.request_id import request_id_of
from service.web.upload import read_upload

PATH: Final = "/predict"

router = APIRouter(tags=[PREDICTIONS])


@router.post(
    PATH,
    summary="Probability of COVID-19 for one slice",
    description=f"Takes one image in the multipart field `image`. {DISCLAIMER}",
    openapi_extra=FORM_WITH_SLICE,
    responses=documented(400, 401, 403, 408, 413, 415, 422, 500, 503, 504),
)
async def predict(request: Request, state: AnyState, model: CurrentModel, point_name: PointName = None) -> Prediction:
    """Read, decode, queue, predict."""
    stages = StageTimer(state.metrics)
    data = await read_upload(request)
    stages.finish("read")
    point = model.point_of(point_name)
    assessment = await cancel_on_disconnect(request, assess_image(data, model, state, stages, point))
    return Prediction.by_service(assessment, model.card, request_id_of(request.scope), stages.milliseconds)
