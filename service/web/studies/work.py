"""Work on one study after its files have arrived: its result as JSON, as a zip or as lines."""

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from service.api_study import ResultFile, StudyAnswer, StudyProgress
from service.dicom_out import Kind
from service.errors import ErrorCode, RequestError, ServiceError
from service.inference.served_model import ServedModel
from service.inference.service_state import ServiceState
from service.inference.study import StudyReader
from service.inference.study_predictions import predict_slices
from service.model.card import OperatingPoint
from service.model.study import Study
from service.web.multipart_form import FormFile
from service.web.problems import problem_body
from service.web.studies.files import result_files_of, slice_pictures, study_zip

LINES: Final = "application/x-ndjson"

_LINES_SECONDS: Final = 0.25
"""Seconds between two sendings of lines. Sending the line of each slice at once took 6 % of the time of a study."""

_PART_BYTES: Final = 3 * 256 * 1024
"""Bytes of a file in a part of its line: a multiple of 3, so that base64 needs no padding in between."""

_log = logging.getLogger("covidct.study")


@dataclass(slots=True)
class Outcome:
    """Outcome of a study for the metric: answered, or the code of an error."""

    code: str = "answered"


@dataclass(frozen=True, slots=True)
class StudyWork:
    """Work after the files of a study have arrived."""

    reader: StudyReader
    model: ServedModel
    point: OperatingPoint
    state: ServiceState
    deadline: float
    every_mm: float | None
    uids: bool
    request_id: str
    outcome: Outcome

    async def read(self, files: AsyncIterator[FormFile]) -> None:
        """Take the files as they arrive; none is held here, because a zip is as large as a body."""
        async with self.in_time():
            async for file in files:
                await self.reader.add(file.name, file.content)

    async def study(self, report: Callable[[StudyProgress], object] = lambda _: None) -> Study:
        """Wait for the files, and read the slices; `report` is called after each one."""
        async with self.in_time():
            study = await self.reader.finish(self.every_mm)
            await predict_slices(study, self.model, self.state, report)
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
            RequestError: then.
        """
        timeout = asyncio.timeout_at(self.deadline)
        try:
            async with timeout:
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            seconds = self.state.settings.study_timeout_seconds
            raise RequestError(
                ErrorCode.DEADLINE_EXCEEDED, f"No result within {seconds:g} seconds; send one series, or fewer slices."
            ) from None

    async def lines(self, files: Kind | None) -> AsyncIterator[bytes]:
        """Yield lines of progress, several times a second, the result or a problem, then pictures and files.

        A client that has closed its connection is noticed by the next lines.

        Args:
            files: kind of the SEG; None yields no files.
        """
        reported: list[StudyProgress] = []
        latest = self._found_so_far()
        task = asyncio.create_task(self.study(reported.append))
        try:
            while reported or not task.done():
                progress = list(reported) or [latest if latest.done else self._found_so_far()]
                reported.clear()
                latest = progress[-1]
                yield b"".join(_line("progress", line) for line in progress)
                await asyncio.wait({task}, timeout=_LINES_SECONDS)
            answer, last = await asyncio.to_thread(self._last, task)
            yield last
            if answer is not None:
                more = self._more(task.result(), answer, files)
                while (line := await asyncio.to_thread(next, more, None)) is not None:
                    yield line
        finally:
            task.cancel()

    def _found_so_far(self) -> StudyProgress:
        return StudyProgress(done=0, of=self.reader.count, seconds_left=None)

    def _more(self, study: Study, answer: StudyAnswer, files: Kind | None) -> Iterator[bytes]:
        """Yield the lines after the result, those of files in parts."""
        try:
            for picture in slice_pictures(study, answer):
                yield _line("picture", picture)
            if files is not None:
                for file in result_files_of(study, self.model, self.point, files):
                    yield from _file_line(file)
        except Exception:  # noqa: BLE001 - the response has begun
            yield self._unexpected()

    def _last(self, task: "asyncio.Task[Study]") -> tuple[StudyAnswer | None, bytes]:
        """Build the result, None if there is none, and its line or that of the problem."""
        try:
            answer = self.answer(task.result())
            return answer, _line("answer", answer)
        except ServiceError as error:
            self.outcome.code = error.code
            return None, _line("problem", problem_body(error, self.request_id))
        except Exception:  # noqa: BLE001 - the response has begun
            return None, self._unexpected()

    def _unexpected(self) -> bytes:
        """Log the exception that is being handled, and build the line of its problem."""
        _log.exception("unexpected error", extra={"fields": {"request_id": self.request_id}})
        self.outcome.code = ErrorCode.INTERNAL_ERROR
        failure = ServiceError()
        return _line("problem", problem_body(failure, self.request_id))


class LinesResponse(StreamingResponse):
    """Lines of a study, with resources that stay open until the last one."""

    def __init__(self, lines: AsyncIterator[bytes], stack: AsyncExitStack) -> None:
        super().__init__(
            lines, media_type=LINES, headers={"X-Accel-Buffering": "no"}
        )  # else nginx would buffer the lines
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines; if the client disconnects, the work stops."""
        async with self._stack:
            await super().__call__(scope, receive, send)


def _line(name: Literal["progress", "answer", "problem", "picture", "file"], body: BaseModel) -> bytes:
    """Write a `StudyLine`."""
    return b'{"%s":%s}\n' % (name.encode(), body.model_dump_json().encode())


def _file_line(file: ResultFile) -> Iterator[bytes]:
    """Yield the `StudyLine` of a file in parts: a SEG of 600 slices has 59 MB, and a whole line six times that."""
    start, end = _line("file", file.model_copy(update={"content": b""})).rsplit(b'""', 1)
    yield start + b'"'
    for at in range(0, len(file.content), _PART_BYTES):
        yield base64.b64encode(file.content[at : at + _PART_BYTES])
    yield b'"' + end


@contextmanager
def counted(state: ServiceState) -> Iterator[Outcome]:
    """Count a study by its outcome, with its time."""
    began, outcome = time.monotonic(), Outcome()
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
