"""POST /predict/study: one result for a CT series, or for all series of a study."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from service import DISCLAIMER
from service.api_study import StudyAnswer, StudyProgress
from service.dicom_out.segmentation import Kind
from service.errors import DeadlineError, ErrorCode, ServiceError
from service.imaging.decode import DecodeLimits
from service.imaging.series.files import ReadOptions
from service.inference.served_model import ServedModel
from service.inference.service_state import ServiceState
from service.inference.study import StudyReader, open_study, read_study
from service.model.card import OperatingPoint
from service.model.study import Study, thin_mm
from service.web.content_negotiation import choose_media_type
from service.web.dependencies import AnyState, CurrentModel, PointName
from service.web.disconnect import cancel_on_disconnect
from service.web.openapi.document import PREDICTIONS
from service.web.openapi.problem_examples import documented
from service.web.problems import problem_body
from service.web.request_id import request_id_of
from service.web.study_files import result_files_of, slice_pictures, study_zip
from service.web.study_upload import OPENAPI_BODY_OF_STUDY, files_of

PATH: Final = "/predict/study"

_JSON: Final = "application/json"
_LINES: Final = "application/x-ndjson"
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

_LINE_SECONDS: Final = 1.0

router = APIRouter(tags=[PREDICTIONS])
_log = logging.getLogger("covidct.study")


@router.post(
    PATH,
    summary="Result for a CT series",
    description="Takes the files of a study in the multipart field `image`, repeated: DICOM files in any order, one "
    "enhanced multi-frame DICOM, one NIfTI volume, or a zip with any folders. Slices are grouped into series and "
    "ordered by their positions; scouts, reports and other companions are skipped with their reason. Returns, by "
    "`Accept`, JSON; `application/x-ndjson`: lines of progress, then the result; or a zip of the result, pictures "
    f"of the key slices, and DICOM SEG and SR or NIfTI masks. {DISCLAIMER}",
    openapi_extra=OPENAPI_BODY_OF_STUDY,
    response_class=Response,
    responses={
        200: {
            "description": "The answer",
            "model": StudyAnswer,
            "content": {
                _LINES: {"schema": {"type": "string", "description": "one `StudyLine` a line"}},
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
    wanted = choose_media_type(request.headers.get("accept", ""), (_JSON, _LINES, _ZIP))
    async with AsyncExitStack() as stack:
        outcome = stack.enter_context(_counted(state))
        point = model.point_of(point_name)
        options = ReadOptions(
            input_size=model.card.input_size,
            limits=DecodeLimits(max_pixels=state.settings.max_pixels, max_frames=state.settings.max_study_slices),
            keep_pictures=wanted == _ZIP,
            keep_headers=wanted == _ZIP or (wanted == _LINES and files),
            thin_mm=thin_mm(every_mm),
        )
        deadline = asyncio.get_running_loop().time() + state.settings.study_timeout_seconds
        reader = await stack.enter_async_context(open_study(state, options, pictures and wanted == _LINES))
        work = _Work(reader, model, point, state, deadline, every_mm, uids, request_id_of(request.scope), outcome)
        async with work.in_time():
            async for name, file in files_of(request):
                await reader.add(name, file)
        if wanted == _LINES:
            return _Lines(work.lines(segmentation if files else None), stack.pop_all())
        study = await cancel_on_disconnect(request, work.study())
        if wanted == _JSON:
            answer = await asyncio.to_thread(work.answer, study)
            return Response(answer.model_dump_json(), media_type=_JSON)
        data = await cancel_on_disconnect(request, work.zip(study, segmentation))
        return Response(data, media_type=_ZIP)


@dataclass(slots=True)
class _Outcome:
    """Outcome of a study for the metric: answered, or the code of an error."""

    code: str = "answered"


@dataclass(frozen=True, slots=True)
class _Work:
    """Work after the files of a study have arrived."""

    reader: StudyReader
    model: ServedModel
    point: OperatingPoint
    state: ServiceState
    deadline: float
    every_mm: float | None
    uids: bool
    request_id: str
    outcome: _Outcome

    async def study(self, progress: "asyncio.Queue[StudyProgress | None] | None" = None) -> Study:
        """Wait for the files, and read the slices."""
        async with self.in_time():
            study = await self.reader.finish(self.every_mm)
            report = (lambda _: None) if progress is None else progress.put_nowait
            await read_study(study, self.model, self.point, self.state, report)
        return study

    def answer(self, study: Study) -> StudyAnswer:
        """Build the result, which takes a second of thousands of series."""
        return StudyAnswer.of(study, self.model.card, self.point, uids=self.uids, request_id=self.request_id)

    async def zip(self, study: Study, kind: Kind) -> bytes:
        """Build the result as a zip."""
        async with self.in_time():
            answer = await asyncio.to_thread(self.answer, study)
            return await study_zip(study, answer, self.model, self.point, kind)

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """End the context at the deadline of the study.

        Raises:
            DeadlineError: then.
        """
        timeout = asyncio.timeout_at(self.deadline)
        try:
            async with timeout:
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            seconds = self.state.settings.study_timeout_seconds
            raise DeadlineError(f"No result within {seconds:g} seconds; send one series, or fewer slices.") from None

    async def lines(self, files: Kind | None) -> AsyncIterator[bytes]:
        """Yield lines of progress, one a second at least, the result or a problem, then pictures and files.

        A client that has closed its connection is noticed by the next line.

        Args:
            files: kind of the SEG; None yields no files.
        """
        queue: asyncio.Queue[StudyProgress | None] = asyncio.Queue()
        progress: StudyProgress | None = self._found_so_far()
        task = asyncio.create_task(self.study(queue))
        task.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while progress is not None:
                yield _line("progress", progress if progress.done else self._found_so_far())
                with suppress(TimeoutError):
                    progress = await asyncio.wait_for(queue.get(), _LINE_SECONDS)
            yield await asyncio.to_thread(self._last, task)
            if task.exception() is None:
                more = self._more(task.result(), files)
                while (line := await asyncio.to_thread(next, more, None)) is not None:
                    yield line
        finally:
            task.cancel()

    def _found_so_far(self) -> StudyProgress:
        return StudyProgress(done=0, of=self.reader.count, seconds_left=None)

    def _more(self, study: Study, files: Kind | None) -> Iterator[bytes]:
        """Yield the lines after the result."""
        try:
            for picture in slice_pictures(study, self.answer(study)):
                yield _line("picture", picture)
            if files is not None:
                for file in result_files_of(study, self.model, self.point, files):
                    yield _line("file", file)
        except Exception:  # noqa: BLE001 - the response has begun
            yield self._unexpected()

    def _last(self, task: "asyncio.Task[Study]") -> bytes:
        try:
            return _line("answer", self.answer(task.result()))
        except ServiceError as error:
            self.outcome.code = error.code
            return _line("problem", problem_body(error, self.request_id))
        except Exception:  # noqa: BLE001 - the response has begun
            return self._unexpected()

    def _unexpected(self) -> bytes:
        """Log the exception that is being handled, and build the line of its problem."""
        _log.exception("unexpected error", extra={"fields": {"request_id": self.request_id}})
        self.outcome.code = ErrorCode.INTERNAL_ERROR
        failure = ServiceError("The service failed; its log has the reason under this request id.")
        return _line("problem", problem_body(failure, self.request_id))


class _Lines(StreamingResponse):
    """Lines of a study, with resources that stay open until the last one."""

    def __init__(self, lines: AsyncIterator[bytes], stack: AsyncExitStack) -> None:
        super().__init__(
            lines, media_type=_LINES, headers={"X-Accel-Buffering": "no"}
        )  # else nginx would buffer the lines
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines; if the client disconnects, the work stops."""
        async with self._stack:
            await super().__call__(scope, receive, send)


def _line(name: Literal["progress", "answer", "problem", "picture", "file"], body: BaseModel) -> bytes:
    """Write a `StudyLine`."""
    return b'{"%s":%s}\n' % (name.encode(), body.model_dump_json().encode())


@contextmanager
def _counted(state: ServiceState) -> Iterator[_Outcome]:
    """Count a study by its outcome, with its time."""
    began, outcome = time.monotonic(), _Outcome()
    try:
        yield outcome
    except BaseException as error:
        gone = ErrorCode.CLIENT_GONE if isinstance(error, asyncio.CancelledError) else ErrorCode.INTERNAL_ERROR
        outcome.code = error.code if isinstance(error, ServiceError) else gone
        raise
    finally:
        state.metrics.studies.labels(outcome=outcome.code).inc()
        if outcome.code == "answered":
            state.metrics.study_seconds.observe(time.monotonic() - began)
