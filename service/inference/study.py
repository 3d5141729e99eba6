"""Reads the files of a study as they arrive."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final

from service.errors import ErrorCode, ServiceError, UnsupportedImageError, UnusableImageError
from service.imaging.overlay import grey_image, jpeg
from service.imaging.series.archives import MAX_FILES, Archive, ArchiveLimits, is_zip
from service.imaging.series.files import PICTURE_SIDE, ReadOptions, StudySlice
from service.imaging.signatures import is_dicom
from service.inference.service_state import ServiceState
from service.inference.study_content import Content, HeldFile, ZippedFile
from service.model.study import (
    FileSlice,
    NotASlice,
    SeriesSlice,
    Study,
    frames_to_decode,
    plan_study,
    set_decoded,
)

_FILES_AT_ONCE: Final = 4
"""Maximum files of a study that are read at the same time; together they have at most the size of a body."""

_UNPACKED: Final = 4
"""Times the limit of a body that its zip may unpack to; only a few files of it are held at a time."""

_MAX_OTHERS: Final = MAX_FILES
"""Files and frames without a slice. A small zip may hold millions of such frames."""

_log = logging.getLogger("covidct.study")


class StudyReader:
    """Reads the files of a study while they arrive; use `open_study`.

    Slices are decoded when they arrive, except of thin series: of these the places are read first, and then only the
    slices that the network reads are decoded. Their files are held until then.

    Args:
        state: its settings limit the study, its decoders read the files.
        options: for reading.
        previews: whether to keep a small JPEG of each slice instead of its picture; then every slice is decoded.
    """

    def __init__(self, state: ServiceState, options: ReadOptions, previews: bool = False) -> None:
        self._state = state
        options = replace(options, picture_side=PICTURE_SIDE)
        self._options = replace(options, keep_pictures=True, thin_mm=0.0) if previews else options
        self._previews = previews
        self._room = asyncio.Semaphore(_FILES_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._zips: list[io.BytesIO] = []
        self._held: dict[int, Content] = {}
        self._files = 0
        self._is_thin = False
        self._file_slices: list[FileSlice] = []
        self._others: list[NotASlice] = []

    @property
    def count(self) -> int:
        """Number of slices found so far."""
        return len(self._file_slices)

    async def add(self, name: str, file: io.BytesIO) -> None:
        """Read a file, and wait while several others are being read. A zip is held until `finish`.

        Raises:
            UnusableImageError: the study is beyond a limit.
        """
        if is_zip(bytes(file.getbuffer()[:4])):
            self._zips.append(file)
        else:
            await self._add(name, HeldFile(file))

    async def finish(self, every_mm: float | None = None) -> Study:
        """Read the zips, wait for the files, plan the series, and decode; `every_mm` as in `plan_study`.

        Raises:
            UnusableImageError: a zip can't be read, the study is beyond a limit, or no file has a slice.
        """
        with ExitStack() as stack:
            while self._zips:
                await self._add_zip(stack.enter_context(await self._open(self._zips.pop(0))))
            await self._wait()
            self._file_slices.sort(key=lambda slice_: slice_.file)
            study = await asyncio.to_thread(plan_study, self._file_slices, self._others, every_mm)
            await self._decode(study)
        return study

    async def close(self) -> None:
        """Stop reading."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _open(self, file: io.BytesIO) -> Archive:
        size = int(self._state.settings.max_study_bytes)
        limits = ArchiveLimits(max_file_bytes=size, max_bytes=_UNPACKED * size)
        return await asyncio.to_thread(Archive, file, limits)

    async def _add_zip(self, archive: Archive) -> None:
        for number in range(len(archive)):
            await self._add(archive.name(number), ZippedFile(archive, number))

    async def _add(self, name: str, content: Content) -> None:
        index, self._files = self._files, self._files + 1
        await self._start(self._read(index, name, content), content.size)

    async def _start(self, reading: Coroutine[None, None, None], size: int) -> None:
        """Start to read a file as soon as `_FILES_AT_ONCE` have room for it."""
        places = min(_FILES_AT_ONCE, 1 + _FILES_AT_ONCE * size // int(self._state.settings.max_study_bytes))
        try:
            for _ in range(places):
                await self._room.acquire()
            self._check()
        except BaseException:
            reading.close()
            raise
        task = asyncio.create_task(reading)
        task.add_done_callback(lambda _: self._free(places))
        self._tasks.add(task)

    def _free(self, places: int) -> None:
        for _ in range(places):
            self._room.release()

    async def _wait(self) -> None:
        await asyncio.gather(*self._tasks)
        self._check()

    async def _read(self, index: int, name: str, content: Content) -> None:
        try:
            if self._is_thin and await self._read_place(index, name, content):
                return
            data = await content.read()
            async with aclosing(self._state.cage.study_slices(data, name, self._options)) as slices:
                async for slice_ in slices:
                    if isinstance(slice_, StudySlice):
                        preview = await asyncio.to_thread(_preview, slice_) if self._previews else None
                        kept = replace(slice_, picture=None) if self._previews else slice_
                        self._add_slice(FileSlice(index, name, kept, preview), content)
                    else:
                        self._others.append(NotASlice(index, name, slice_))
                        self._check_count()
        except Exception as error:  # noqa: BLE001 - one file must not end the study
            self._others.append(NotASlice(index, name, _error_of_file(error)))

    async def _read_place(self, index: int, name: str, content: Content) -> bool:
        """Whether the start of a file was enough to know the place of a thin slice."""
        start = await content.read_start()
        if not is_dicom(start):
            return False
        options = replace(self._options, is_whole=False)
        slices = [slice_ async for slice_ in self._state.cage.study_slices(start, name, options)]
        for slice_ in slices:
            if isinstance(slice_, StudySlice):
                self._add_slice(FileSlice(index, name, slice_), content)
        return bool(slices)

    def _add_slice(self, slice_: FileSlice, content: Content) -> None:
        self._is_thin = slice_.read.network_input is None
        if self._is_thin:
            self._held[slice_.file] = content
        self._file_slices.append(slice_)
        self._check_count()

    async def _decode(self, study: Study) -> None:
        """Decode the slices to read of which only the place is known, and let go of the files."""
        to_decode = study.to_decode()
        self._held = {file: self._held[file] for file in to_decode}
        for file, slices in to_decode.items():
            content = self._held.pop(file)
            await self._start(self._decode_file(content, slices), content.size)
        await self._wait()

    async def _decode_file(self, content: Content, slices: Sequence[SeriesSlice]) -> None:
        try:
            data = await content.read()
            options = frames_to_decode(slices, self._options)
            decoded = self._state.cage.study_slices(data, slices[0].file_slice.name, options)
            async with aclosing(decoded) as pixels:
                for slice_ in slices:
                    set_decoded(slice_, await anext(pixels))
        except Exception as error:  # noqa: BLE001 - as in _read
            reason = _error_of_file(error)
            for slice_ in slices:
                if slice_.file_slice.read.network_input is None and slice_.answer is None:
                    slice_.answer = reason

    def _check(self) -> None:
        """Raise the error of a file that ended reading, or the limit of slices."""
        done = {task for task in self._tasks if task.done()}
        self._tasks -= done
        for task in done:
            task.result()
        self._check_count()

    def _check_count(self) -> None:
        if len(self._others) > _MAX_OTHERS:
            raise UnusableImageError(
                f"More than {_MAX_OTHERS} files and frames of the study have no slice; send its series one at a time.",
                code=ErrorCode.STUDY_TOO_LARGE,
            )
        most = self._state.settings.max_study_slices
        if len(self._file_slices) > most:
            raise UnusableImageError(
                f"The study has more than {most} slices; send its series one at a time.", code=ErrorCode.STUDY_TOO_LARGE
            )


def _error_of_file(error: Exception) -> ServiceError:
    """Return the reason why a file has no slice; raise an error that is not of this file alone."""
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, ServiceError):
        is_of_file = isinstance(error, UnusableImageError | UnsupportedImageError)
        if error.code == ErrorCode.STUDY_TOO_LARGE or not (is_of_file or error.code == ErrorCode.INTERNAL_ERROR):
            raise error
        return error.without_frames()
    _log.error("unexpected error in a file of a study", exc_info=error)
    return ServiceError("The service failed at the file; the log has the reason. Please report it.")


def _preview(slice_: StudySlice) -> bytes | None:
    return None if slice_.picture is None else jpeg(grey_image(slice_.picture))


@asynccontextmanager
async def open_study(state: ServiceState, options: ReadOptions, previews: bool = False) -> AsyncIterator[StudyReader]:
    """Open a reader of one study, which stops with the context."""
    reader = StudyReader(state, options, previews)
    try:
        yield reader
    finally:
        await reader.close()
