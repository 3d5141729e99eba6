"""POST /explain: where the evidence lies that a probability rests on."""

import asyncio
import base64
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from service.accept import preferred
from service.context import request_id_of
from service.disclaimer import DISCLAIMER
from service.inference import Finding, Stages, examine, prediction_body, unless_client_leaves
from service.overlay import bare_map, overlay, picture, png
from service.problems import documented
from service.schemas import Explanation, Heatmap
from service.serving import Model, Ready
from service.upload import OPENAPI_BODY, read_upload

PATH: Final = "/explain"

_PNG: Final = "image/png"
_JSON: Final = "application/json"

_Bare = Annotated[bool, Query(alias="map", description="the bare map instead of the slice with the map over it")]
_MaxSide = Annotated[
    int | None, Query(ge=64, le=8192, description="longest side of the pictures in pixels; unset: the slice's own size")
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
async def explain(request: Request, serving: Ready, bare: _Bare = False, max_side: _MaxSide = None) -> Response:
    """Read, decode, queue, infer, draw."""
    wanted = preferred(request.headers.get("accept", ""), (_PNG, _JSON))
    stages = Stages(serving.metrics)
    data = await read_upload(request)
    stages.end("read")
    with serving.model() as model:
        finding = await unless_client_leaves(request, examine(data, model, serving, stages))
        draw = partial(_as_json, finding, model, request_id_of(request.scope), stages, max_side)
        if wanted == _PNG:
            draw = partial(_as_png, finding, bare, max_side)
        return await asyncio.get_running_loop().run_in_executor(serving.decoders, draw)


def _as_png(finding: Finding, bare: bool, max_side: int | None) -> Response:
    heatmap = finding.prediction.heatmap
    image = bare_map(heatmap) if bare else overlay(finding.ct_slice, heatmap, max_side)
    headers = {
        "X-COVIDCT-Probability": f"{finding.prediction.probability:.6f}",
        "X-COVIDCT-Label": finding.label,
        "X-COVIDCT-Flagged": str(finding.flagged).lower(),
    }
    return Response(png(image), headers=headers, media_type=_PNG)


def _as_json(finding: Finding, model: Model, request_id: str, stages: Stages, max_side: int | None) -> Response:
    heatmap = finding.prediction.heatmap
    height, width = heatmap.shape
    body = Explanation(
        **prediction_body(finding, model, request_id, stages).model_dump(),
        heatmap=Heatmap(width=width, height=height, values=heatmap.tolist()),
        slice_png_base64=as_base64(png(picture(finding.ct_slice, max_side))),
        overlay_png_base64=as_base64(png(overlay(finding.ct_slice, heatmap, max_side))),
    )
    return Response(body.model_dump_json(), media_type=_JSON)


def as_base64(data: bytes) -> str:
    """RFC 4648, 4."""
    return base64.b64encode(data).decode("ascii")
