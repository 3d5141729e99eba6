"""Reads the files of a study as they arrive, then predicts for its slices with a share of the machine."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final

from service.api_study import StudyProgress
from service.errors import ErrorCode, ServiceError, UnsupportedImageError, UnusableImageError
from service.imaging.overlay import grey_image, jpeg
from service.imaging.series.archives import ArchiveLimits, is_zip, read_zip
from service.imaging.series.files import ReadOptions, StudySlice, refuse_other_file
from service.inference.pipeline import infer
from service.inference.served_model import QueuedSlice, ServedModel
from service.inference.service_state import ServiceState
from service.model.assess import assess
from service.model.card import OperatingPoint
from service.model.prediction import NetworkPrediction
from service.model.study import FoundSlice, NotASlice, SeriesToRead, Study, plan_study

_FILES_AT_ONCE: Final = 4
"""Maximum files of a study that are read at the same time; together they have at most the size of a body."""

_UNPACKED: Final = 4
"""Times the limit of a body that its zip may unpack to; only a few files of it are held at a time."""

_PREVIEW_SIDE: Final = 1024
"""Longest side of a preview in pixels: 2,000 of them take about 100 MB."""

_RETRY_SECONDS: Final = 0.1
"""Pause of a study while single slices fill the queue."""


class StudyReader:
    """Reads the files of a study while they arrive; use `open_study`.

    Args:
        state: its settings limit the study, its decoders read the files.
        options: for reading.
        previews: whether to keep a small JPEG of each slice instead of its picture.
    """

    def __init__(self, state: ServiceState, options: ReadOptions, previews: bool = False) -> None:
        self._state = state
        self._options = replace(options, keep_pictures=True) if previews else options
        self._previews = previews
        self._room = asyncio.Semaphore(_FILES_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._zips: list[io.BytesIO] = []
        self._files = 0
        self._found: list[FoundSlice] = []
        self._others: list[NotASlice] = []

    @property
    def count(self) -> int:
        """Number of slices found so far."""
        return len(self._found)

    async def add(self, name: str, file: io.BytesIO) -> None:
        """Read a file, and wait while several others are being read. A zip is held until `finish`.

        Raises:
            UnusableImageError: the study is beyond a limit.
        """
        if is_zip(bytes(file.getbuffer()[:4])):
            self._zips.append(file)
        else:
            await self._add(name, file.getvalue())

    async def finish(self, every_mm: float | None = None) -> Study:
        """Read the zips, wait for the files, and plan the series; `every_mm` as in `plan_study`.

        Raises:
            UnusableImageError: a zip can't be read, the study is beyond a limit, or no file has a slice.
        """
        while self._zips:
            await self._add_zip(self._zips.pop(0))
        await asyncio.gather(*self._tasks)
        self._check()
        self._found.sort(key=lambda slice_: slice_.file)
        study = plan_study(self._found, self._others, every_mm)
        if not study.series:
            raise _no_slices(study.others)
        return study

    async def close(self) -> None:
        """Stop reading."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _add_zip(self, file: io.BytesIO) -> None:
        size = int(self._state.settings.max_study_bytes)
        members = read_zip(file, ArchiveLimits(max_file_bytes=size, max_bytes=_UNPACKED * size))
        while (member := await asyncio.to_thread(next, members, None)) is not None:
            if isinstance(member.data, ServiceError):
                self._others.append(NotASlice(self._next_file(), member.name, member.data))
            else:
                await self._add(member.name, member.data)

    async def _add(self, name: str, data: bytes) -> None:
        places = min(_FILES_AT_ONCE, 1 + _FILES_AT_ONCE * len(data) // int(self._state.settings.max_study_bytes))
        for _ in range(places):
            await self._room.acquire()
        self._check()
        task = asyncio.create_task(self._read(self._next_file(), name, data, places))
        self._tasks.add(task)

    def _next_file(self) -> int:
        self._files += 1
        return self._files - 1

    async def _read(self, index: int, name: str, data: bytes, places: int) -> None:
        try:
            refuse_other_file(data, name)
            async with aclosing(self._state.cage.study_slices(data, name, self._options)) as slices:
                async for slice_ in slices:
                    if isinstance(slice_, StudySlice):
                        preview = await asyncio.to_thread(_preview, slice_) if self._previews else None
                        kept = replace(slice_, picture=None) if self._previews else slice_
                        self._found.append(FoundSlice(index, name, kept, preview))
                        self._check_count()
                    else:
                        self._others.append(NotASlice(index, name, slice_))
        except UnusableImageError as error:
            if error.code == ErrorCode.STUDY_TOO_LARGE:
                raise
            self._others.append(NotASlice(index, name, error))
        except UnsupportedImageError as error:
            self._others.append(NotASlice(index, name, error))
        finally:
            for _ in range(places):
                self._room.release()

    def _check(self) -> None:
        """Raise the error of a file that ended reading, or the limit of slices."""
        done = {task for task in self._tasks if task.done()}
        self._tasks -= done
        for task in done:
            task.result()
        self._check_count()

    def _check_count(self) -> None:
        most = self._state.settings.max_study_slices
        if len(self._found) > most:
            raise UnusableImageError(
                f"The study has more than {most} slices; send its series one at a time.", code=ErrorCode.STUDY_TOO_LARGE
            )


def _preview(slice_: StudySlice) -> bytes | None:
    return None if slice_.picture is None else jpeg(grey_image(slice_.picture, _PREVIEW_SIDE))


@asynccontextmanager
async def open_study(state: ServiceState, options: ReadOptions, previews: bool = False) -> AsyncIterator[StudyReader]:
    """Open a reader of one study, which stops with the context."""
    reader = StudyReader(state, options, previews)
    try:
        yield reader
    finally:
        await reader.close()


async def read_study(
    study: Study,
    model: ServedModel,
    point: OperatingPoint,
    state: ServiceState,
    report: Callable[[StudyProgress], object] = lambda _: None,
) -> None:
    """Predict for every wanted slice of a study.

    The slices of all studies together hold a share of the queue that the machine is just busy with, so that a single
    slice waits for one of them at most.

    Args:
        study: as planned; its slices get their answers.
        model: to use; the caller keeps it in use.
        point: for labels.
        state: its metrics count.
        report: called after each slice.

    Raises:
        ServiceError: the service is shutting down, or no slice could be read.
        UnusableImageError: no slice has lungs.
    """
    wanted = list(study.to_read())
    began, done = time.monotonic(), 0

    async def one(series: SeriesToRead, index: int) -> None:
        nonlocal done
        slice_ = series.slices[index]
        try:
            slice_.answer = await _answer(series, index, model, point)
        finally:
            model.study_room.release()
        done += 1
        each = (time.monotonic() - began) / done
        report(StudyProgress(done=done, of=len(wanted), seconds_left=each * (len(wanted) - done)))

    tasks: list[asyncio.Task[None]] = []
    try:
        for series, index in wanted:
            await model.study_room.acquire()
            tasks.append(asyncio.create_task(one(series, index)))
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    _count(study, state)
    _raise_if_empty(study)


async def _answer(
    series: SeriesToRead, index: int, model: ServedModel, point: OperatingPoint
) -> NetworkPrediction | ServiceError:
    queued = QueuedSlice(series.slices[index].found.read.network_input, series.is_beyond_lungs(index))
    while True:
        try:
            answer = await infer(model, queued)
        except ServiceError as error:
            if error.code == ErrorCode.QUEUE_FULL:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if error.code == ErrorCode.SHUTTING_DOWN:
                raise
            return error
        check = assess(answer.result, model.card, point).check
        if check.reason is None:
            return answer.result
        return ServiceError(check.reason, code=ErrorCode(check.reason))


def _count(study: Study, state: ServiceState) -> None:
    """Count the slices of a study by outcome."""
    for series in study.series:
        for slice_ in series.slices:
            outcome = slice_.reason or ("read" if slice_.prediction else "not_read")
            state.metrics.study_slices.labels(outcome=outcome).inc()
    for other in study.others:
        state.metrics.study_slices.labels(outcome="skipped" if other.is_companion else "failed").inc()


def _raise_if_empty(study: Study) -> None:
    """Refuse a study without any lungs."""
    answers = [slice_.answer for series in study.series for slice_ in series.slices if slice_.answer is not None]
    errors = [answer for answer in answers if isinstance(answer, ServiceError)]
    if len(errors) < len(answers):
        return
    failures = [error for error in errors if error.status >= 500 and error.code != ErrorCode.NO_LUNGS]
    if failures:
        raise failures[0]
    raise UnusableImageError(
        f"None of the {len(answers)} slices that were read shows lungs in a usable window; send a chest CT series.",
        code=ErrorCode.NO_LUNGS,
        title="No lungs found",
    )


def _no_slices(others: list[NotASlice]) -> UnusableImageError:
    reasons: dict[str, int] = {}
    for other in others:
        reasons[other.error.code] = reasons.get(other.error.code, 0) + 1
    found = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return UnusableImageError(
        f"No file of the study is an axial CT slice ({found or 'it has no files'}); send the series of slices.",
        code=ErrorCode.NO_SLICES,
        title="No slices",
    )
