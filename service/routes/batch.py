"""POST /predict/batch: several slices in one request, each with its own result."""

import logging
from functools import partial
from typing import Final

from fastapi import APIRouter, Request

from service.context import request_id_of
from service.disclaimer import DISCLAIMER
from service.errors import ServiceError
from service.inference import Stages, examine, examine_each, prediction_body, unless_client_leaves
from service.problems import documented, problem_body
from service.schemas import BatchBody, BatchResult
from service.serving import Model, Ready, Serving
from service.upload import OPENAPI_BODY_OF_MANY, read_uploads

PATH: Final = "/predict/batch"

router = APIRouter()
_log = logging.getLogger("covidct.batch")


@router.post(
    PATH,
    summary="Probabilities of COVID-19 for several slices",
    description="Takes images in the multipart field `image`, repeated, and answers a prediction or a problem for "
    f"each, in order; one that can't be used does not fail the others. {DISCLAIMER}",
    openapi_extra=OPENAPI_BODY_OF_MANY,
    responses=documented(400, 401, 408, 413, 415, 500, 503, 504),
)
async def predict_batch(request: Request, serving: Ready) -> BatchBody:
    """Read all, then decode, queue and infer each."""
    stages = Stages(serving.metrics)
    files = await read_uploads(request, serving.settings.max_images_per_request)
    stages.end("read")
    request_id = request_id_of(request.scope)
    with serving.model() as model:
        one = partial(_one, files, model, serving, stages, request_id)
        results = await unless_client_leaves(request, examine_each(len(files), one, model))
    return BatchBody(request_id=request_id, results=results)


async def _one(
    files: list[bytes], model: Model, serving: Serving, stages: Stages, request_id: str, index: int
) -> BatchResult:
    own = stages.branch()
    try:
        finding = await examine(files[index], model, serving, own)
    except ServiceError as error:
        failure = error
    except Exception:  # noqa: BLE001 - one image's; the others get their answers, and the log the reason
        _log.exception("unexpected error", extra={"fields": {"request_id": request_id, "index": index}})
        failure = ServiceError("The service failed; its log has the reason under this request id.")
    else:
        prediction = prediction_body(finding, model, request_id, own)
        return BatchResult(index=index, prediction=prediction, problem=None)
    serving.metrics.rejected_images.labels(reason=failure.code).inc()
    return BatchResult(index=index, prediction=None, problem=problem_body(failure, request_id))
