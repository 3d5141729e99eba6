"""POST /explain: the heat map of a prediction."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from PIL.Image import Image

from service import DISCLAIMER
from service.api import Explanation, Map, Prediction
from service.imaging.decode import Slice
from service.imaging.overlay import grey_image, map_image, overlay, png, with_colour_bar
from service.inference.pipeline import assess_and_keep
from service.inference.served_model import ServedModel
from service.inference.stages import StageTimer
from service.model.assess import Assessment
from service.web.content_negotiation import choose_media_type
from service.web.dependencies import AnyState, CurrentModel, PointName
from service.web.disconnect import cancel_on_disconnect
from service.web.openapi.document import PREDICTIONS
from service.web.openapi.forms import FORM_WITH_SLICE
from service.web.openapi.problem_examples import documented
from service.web.request_id import request_id_of
from service.web.upload import read_upload

PATH: Final = "/explain"

_PNG: Final = "image/png"
_JSON: Final = "application/json"

_Bare = Annotated[bool, Query(alias="map", description="return the heat map alone instead of the overlay")]
_WithLungs = Annotated[bool, Query(alias="lungs", description="draw the outline of the lungs, if the model finds them")]
_MaxSide = Annotated[
    int | None,
    Query(ge=64, le=8192, description="maximum side of the slice in the pictures, in pixels; default: its own size"),
]

router = APIRouter(tags=[PREDICTIONS])


@router.post(
    PATH,
    summary="Heat map for one slice",
    description="Takes one image in the multipart field `image`. Returns, by `Accept`, a PNG (the slice with the "
    "probability of lesion in colour, its contour at 0.25 and a colour bar; with `?lungs=true` also the outline of the "
    "lungs; with `?map=true` the bare map, grey) or JSON with the prediction, the values of lesion and lung, and the "
    "pictures in base64. A PNG has the prediction in the headers "
    "X-COVIDCT-Probability, X-COVIDCT-Threshold, X-COVIDCT-Operating-Point, unless a check has failed X-COVIDCT-Label, "
    "and, if the model has them, X-COVIDCT-Lesion-Probability, X-COVIDCT-Covid-Given-Lesion and "
    f"X-COVIDCT-Lesion-Threshold. {DISCLAIMER}",
    openapi_extra=FORM_WITH_SLICE,
    response_class=Response,
    responses={
        200: {
            "description": "The heat map",
            "model": Explanation,
            "content": {_PNG: {"schema": {"type": "string", "format": "binary"}}},
        },
        **documented(400, 401, 403, 406, 408, 413, 415, 422, 500, 503, 504),
    },
)
async def explain(
    request: Request,
    state: AnyState,
    model: CurrentModel,
    bare: _Bare = False,
    with_lungs: _WithLungs = False,
    max_side: _MaxSide = None,
    point_name: PointName = None,
) -> Response:
    """Read, decode, queue, predict, draw."""
    wanted = choose_media_type(request.headers.get("accept", ""), (_PNG, _JSON))
    stages = StageTimer(state.metrics)
    data = await read_upload(request)
    stages.finish("read")
    point = model.point_of(point_name)
    ct_slice, assessment = await cancel_on_disconnect(request, assess_and_keep(data, model, state, stages, point))
    pictures = _Pictures(ct_slice, assessment, with_lungs, max_side)
    draw = partial(_as_json, pictures, model, request_id_of(request.scope), stages)
    if wanted == _PNG:
        draw = partial(_as_png, pictures, bare)
    return await asyncio.get_running_loop().run_in_executor(state.threads, draw)


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Pictures of an assessment."""

    ct_slice: Slice
    assessment: Assessment
    with_lungs: bool
    max_side: int | None

    def slice(self) -> Image:
        return grey_image(self.ct_slice, self.max_side)

    def overlay(self) -> Image:
        prediction = self.assessment.prediction
        lungs = prediction.lungs if self.with_lungs else None
        return overlay(self.ct_slice, prediction.heatmap, self.max_side, lungs)


def _as_png(pictures: _Pictures, bare: bool) -> Response:
    assessment = pictures.assessment
    image = map_image(assessment.prediction.heatmap) if bare else with_colour_bar(pictures.overlay())
    headers = {
        "X-COVIDCT-Probability": f"{assessment.prediction.probability:.6f}",
        "X-COVIDCT-Threshold": f"{assessment.point.threshold:g}",
        "X-COVIDCT-Operating-Point": assessment.point.name,
        "X-COVIDCT-Flagged": str(assessment.check.failed).lower(),
    }
    if assessment.label is not None:
        headers["X-COVIDCT-Label"] = assessment.label
    prediction = assessment.prediction
    if prediction.lesion_probability is not None and prediction.covid_given_lesion is not None:
        headers["X-COVIDCT-Lesion-Probability"] = f"{prediction.lesion_probability:.6f}"
        headers["X-COVIDCT-Covid-Given-Lesion"] = f"{prediction.covid_given_lesion:.6f}"
        headers["X-COVIDCT-Lesion-Threshold"] = f"{assessment.point.lesion_threshold:g}"
    return Response(png(image), headers=headers, media_type=_PNG)


def _as_json(pictures: _Pictures, model: ServedModel, request_id: str, stages: StageTimer) -> Response:
    assessment = pictures.assessment
    lungs = assessment.prediction.lungs
    body = Explanation(
        **dict(Prediction.by_service(assessment, model.card, request_id, stages.milliseconds)),
        heatmap=Map.of(assessment.prediction.heatmap),
        lungs=None if lungs is None else Map.of(lungs),
        slice_png=png(pictures.slice()),
        overlay_png=png(pictures.overlay()),
    )
    return Response(body.model_dump_json(by_alias=True), media_type=_JSON)
