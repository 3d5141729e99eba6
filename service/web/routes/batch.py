"""POST /predict/batch: several slices in one request, each with its own result."""

import logging
from functools import partial
from typing import Final

from fastapi import APIRouter, Request

from service import DISCLAIMER
from service.api import BatchAnswer, BatchResult, Prediction
from service.errors import ServiceError
from service.inference.pipeline import assess_image, run_bounded
from service.inference.served_model import ServedModel
from service.inference.service_state import ServiceState
from service.inference.stages import StageTimer
from service.model.card import OperatingPoint
from service.web.dependencies import AnyState, CurrentModel, PointName
from service.web.disconnect import cancel_on_disconnect
from service.web.multipart_form import FormFile
from service.web.openapi.document import PREDICTIONS
from service.web.openapi.forms import FORM_WITH_SLICES
from service.web.openapi.problem_examples import documented
from service.web.problems import problem_body
from service.web.request_id import request_id_of
from service.web.upload import files_of

PATH: Final = "/predict/batch"

router = APIRouter(tags=[PREDICTIONS])
_log = logging.getLogger("covidct.batch")


@router.post(
    PATH,
    summary="Probabilities of COVID-19 for several slices",
    description="Takes images in the multipart field `image`, repeated, and returns a prediction or a problem for "
    f"each, in order; an unusable one does not fail the others. {DISCLAIMER}",
    openapi_extra=FORM_WITH_SLICES,
    responses=documented(400, 401, 403, 408, 413, 415, 500, 503, 504),
)
async def predict_batch(
    request: Request, state: AnyState, model: CurrentModel, point_name: PointName = None
) -> BatchAnswer:
    """Read all images, then decode, queue and predict each."""
    stages = StageTimer(state.metrics)
    files = [file async for file in files_of(request, state.settings.max_images_per_request)]
    stages.finish("read")
    request_id = request_id_of(request.scope)
    one = partial(_one, files, model, model.point_of(point_name), state, stages, request_id)
    results = await cancel_on_disconnect(request, run_bounded(len(files), one, model))
    return BatchAnswer(request_id=request_id, results=results)


async def _one(
    files: list[FormFile],
    model: ServedModel,
    point: OperatingPoint,
    state: ServiceState,
    stages: StageTimer,
    request_id: str,
    index: int,
) -> BatchResult:
    stages, file = stages.copy(), files[index]
    try:
        assessment = await assess_image(file.content.getvalue(), model, state, stages, point)
    except ServiceError as error:
        failure = error
    except Exception:  # noqa: BLE001 - only this image fails; the log has the reason
        _log.exception("unexpected error", extra={"fields": {"request_id": request_id, "index": index}})
        failure = ServiceError()
    else:
        prediction = Prediction.by_service(assessment, model.card, request_id, stages.milliseconds)
        return BatchResult(index=index, name=file.name or None, prediction=prediction, problem=None)
    return BatchResult(index=index, name=file.name or None, prediction=None, problem=problem_body(failure, request_id))
