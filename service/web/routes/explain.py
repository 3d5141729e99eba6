"""POST /explain: the heat map of a prediction."""

import asyncio
import base64
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from service import DISCLAIMER
from service.imaging.overlay import grey_image, heatmap_image, overlay, png
from service.inference.pipeline import Assessment, assess_image
from service.inference.served_model import ServedModel
from service.inference.stages import StageTimer
from service.web.answers import prediction_body
from service.web.content_negotiation import choose_media_type
from service.web.dependencies import ReadyState
from service.web.disconnect import cancel_on_disconnect
from service.web.problems import documented
from service.web.request_id import request_id_of
from service.web.schemas import Explanation, Heatmap
from service.web.upload import OPENAPI_BODY, read_upload

PATH: Final = "/explain"

_PNG: Final = "image/png"
_JSON: Final = "application/json"

_Bare = Annotated[bool, Query(alias="map", description="answer the heat map alone instead of the overlay")]
_MaxSide = Annotated[
    int | None,
    Query(ge=64, le=8192, description="maximum side of the pictures in pixels; default: the size of the slice"),
]

router = APIRouter()


@router.post(
    PATH,
    summary="Heat map for one slice",
    description="Takes one image in the multipart field `image`. Answers, as `Accept` asks, a PNG (the slice with the "
    "evidence for COVID in colour; with `?map=true` the bare map, grey) or JSON with the prediction, the map's values "
    "and the pictures in base64. From the same pass through the network as the probability, which a PNG has in the "
    f"headers X-COVIDCT-Probability and X-COVIDCT-Label. {DISCLAIMER}",
    openapi_extra=OPENAPI_BODY,
    response_class=Response,
    responses={
        200: {
            "description": "The heat map",
            "model": Explanation,
            "content": {_PNG: {"schema": {"type": "string", "format": "binary"}}},
        },
        **documented(400, 401, 406, 408, 413, 415, 422, 500, 503, 504),
    },
)
async def explain(request: Request, state: ReadyState, bare: _Bare = False, max_side: _MaxSide = None) -> Response:
    """Read, decode, queue, predict, draw."""
    wanted = choose_media_type(request.headers.get("accept", ""), (_PNG, _JSON))
    stages = StageTimer(state.metrics)
    data = await read_upload(request)
    stages.finish("read")
    with state.model() as model:
        assessment = await cancel_on_disconnect(request, assess_image(data, model, state, stages))
        draw = partial(_as_json, assessment, model, request_id_of(request.scope), stages, max_side)
        if wanted == _PNG:
            draw = partial(_as_png, assessment, bare, max_side)
        return await asyncio.get_running_loop().run_in_executor(state.decoders, draw)


def _as_png(assessment: Assessment, bare: bool, max_side: int | None) -> Response:
    heatmap = assessment.prediction.heatmap
    image = heatmap_image(heatmap) if bare else overlay(assessment.ct_slice, heatmap, max_side)
    headers = {
        "X-COVIDCT-Probability": f"{assessment.prediction.probability:.6f}",
        "X-COVIDCT-Label": assessment.label,
        "X-COVIDCT-Flagged": str(assessment.is_out_of_distribution).lower(),
    }
    return Response(png(image), headers=headers, media_type=_PNG)


def _as_json(
    assessment: Assessment, model: ServedModel, request_id: str, stages: StageTimer, max_side: int | None
) -> Response:
    heatmap = assessment.prediction.heatmap
    height, width = heatmap.shape
    body = Explanation(
        **prediction_body(assessment, model, request_id, stages).model_dump(),
        heatmap=Heatmap(width=width, height=height, values=heatmap.tolist()),
        slice_png_base64=_as_base64(png(grey_image(assessment.ct_slice, max_side))),
        overlay_png_base64=_as_base64(png(overlay(assessment.ct_slice, heatmap, max_side))),
    )
    return Response(body.model_dump_json(), media_type=_JSON)


def _as_base64(data: bytes) -> str:
    """Encode in base64 (RFC 4648, 4)."""
    return base64.b64encode(data).decode("ascii")
