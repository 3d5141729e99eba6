"""POST /predict/study: one result for a CT series, or for all series of a study."""

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from service import DISCLAIMER
from service.api_study import StudyAnswer
from service.dicom_out import Kind
from service.imaging.decode import DecodeLimits
from service.imaging.series.archives import MAX_FILES
from service.imaging.series.files import ReadOptions
from service.inference.study import open_study
from service.model.study_plan import thin_mm
from service.web.content_negotiation import choose_media_type
from service.web.dependencies import AnyState, CurrentModel, PointName
from service.web.disconnect import cancel_on_disconnect
from service.web.openapi.document import PREDICTIONS
from service.web.openapi.forms import FORM_WITH_STUDY
from service.web.openapi.problem_examples import documented
from service.web.request_id import request_id_of
from service.web.studies.work import LINES, LinesResponse, StudyWork, counted
from service.web.upload import files_of

PATH: Final = "/predict/study"

_JSON: Final = "application/json"
_ZIP: Final = "application/zip"

_Uids = Annotated[
    bool,
    Query(description="include UIDs and file names, which may identify a patient; default: neither"),
]
_EveryMm = Annotated[
    float | None,
    Query(
        ge=0,
        le=100,
        description="distance in mm between slices that are read; 0 reads every slice; by default 5 in series with "
        "less than 2.5 mm between their slices, and every slice in others",
    ),
]
_Segmentation = Annotated[
    Kind,
    Query(description="DICOM SEG in the zip: `binary` masks, or `fractional` probabilities, compressed by JPEG-LS"),
]

_Pictures = Annotated[
    bool, Query(description="`application/x-ndjson` only: after the result, a line with the picture of each slice")
]
_Files = Annotated[
    bool, Query(description="`application/x-ndjson` only: after the result, a line with each result file of the zip")
]

router = APIRouter(tags=[PREDICTIONS])


@router.post(
    PATH,
    summary="Result for a CT series",
    description="Takes the files of a study in the multipart field `image`, repeated: DICOM files in any order, one "
    "enhanced multi-frame DICOM, one NIfTI volume, or a zip with any folders. Slices are grouped into series and "
    "ordered by their positions; scouts, reports and other companions are skipped with their reason. Returns, by "
    "`Accept`, JSON; `application/x-ndjson`: lines of progress, then the result; or a zip of the result, pictures "
    f"of the key slices, and DICOM SEG and SR or NIfTI masks. {DISCLAIMER}",
    openapi_extra=FORM_WITH_STUDY,
    response_class=Response,
    responses={
        200: {
            "description": "The answer",
            "model": StudyAnswer,
            "content": {
                LINES: {"schema": {"type": "string", "description": "one `StudyLine` a line"}},
                _ZIP: {"schema": {"type": "string", "format": "binary"}},
            },
        },
        **documented(400, 401, 403, 406, 408, 413, 415, 422, 500, 503, 504),
    },
)
async def predict_study(
    request: Request,
    state: AnyState,
    model: CurrentModel,
    uids: _Uids = False,
    every_mm: _EveryMm = None,
    segmentation: _Segmentation = "binary",
    pictures: _Pictures = False,
    files: _Files = False,
    point_name: PointName = None,
) -> Response:
    """Read files as they arrive, then predict for the slices of each series."""
    wanted = choose_media_type(request.headers.get("accept", ""), (_JSON, LINES, _ZIP))
    async with AsyncExitStack() as stack:
        outcome = stack.enter_context(counted(state))
        point = model.point_of(point_name)
        with_files = wanted == _ZIP or (wanted == LINES and files)
        options = ReadOptions(
            input_size=model.card.input_size,
            limits=DecodeLimits(max_pixels=state.settings.max_pixels, max_frames=state.settings.max_study_slices),
            keep_pictures=with_files,
            keep_headers=with_files,
            thin_mm=thin_mm(every_mm),
        )
        deadline = asyncio.get_running_loop().time() + state.settings.study_timeout_seconds
        reader = await stack.enter_async_context(open_study(state, options, pictures and wanted == LINES))
        work = StudyWork(reader, model, point, state, deadline, every_mm, uids, request_id_of(request.scope), outcome)
        await work.read(files_of(request, MAX_FILES))
        if wanted == LINES:
            return LinesResponse(work.lines(segmentation if files else None), stack.pop_all())
        study = await cancel_on_disconnect(request, work.study())
        if wanted == _JSON:
            answer = await asyncio.to_thread(work.answer, study)
            return Response(answer.model_dump_json(), media_type=_JSON)
        data = await cancel_on_disconnect(request, work.zip(study, segmentation))
        return Response(data, media_type=_ZIP)
