"""Reads the files of a study as they arrive."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final

from service.errors import ErrorCode, ServiceError, UnsupportedImageError, UnusableImageError
from service.imaging.overlay import grey_image, jpeg
from service.imaging.series.archives import MAX_FILES, Archive, ArchiveLimits, is_zip
from service.imaging.series.files import PICTURE_SIDE, ReadOptions, StudySlice
from service.imaging.signatures import is_dicom
from service.inference.file_tasks import FileTasks
from service.inference.service_state import ServiceState
from service.inference.study_content import Content, HeldFile, ZippedFile
from service.model.study import FileToDecode, NotASlice, SeriesSlice, Study
from service.model.study_plan import plan_study

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
        self._cage, self._settings = state.cage, state.settings
        options = replace(options, picture_side=PICTURE_SIDE)
        self._options = replace(options, keep_pictures=True, thin_mm=0.0) if previews else options
        self._previews = previews
        self._tasks = FileTasks(int(state.settings.max_study_bytes))
        self._zips: list[io.BytesIO] = []
        self._files = 0
        self._last_was_thin = False
        self._held: dict[int, Content] = {}  # files with thin slices, by index
        self._slices: list[SeriesSlice] = []
        self._others: list[NotASlice] = []

    @property
    def count(self) -> int:
        """Number of slices found so far."""
        return len(self._slices)

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
            await self._tasks.wait()
            self._slices.sort(key=lambda slice_: slice_.file)
            study = await asyncio.to_thread(plan_study, self._slices, self._others, every_mm)
            await self._decode(study)
        return study

    async def close(self) -> None:
        """Stop reading."""
        await self._tasks.cancel()

    async def _open(self, file: io.BytesIO) -> Archive:
        size = int(self._settings.max_study_bytes)
        limits = ArchiveLimits(max_file_bytes=size, max_bytes=_UNPACKED * size)
        return await asyncio.to_thread(Archive, file, limits)

    async def _add_zip(self, archive: Archive) -> None:
        for number in range(len(archive)):
            await self._add(archive.name(number), ZippedFile(archive, number))

    async def _add(self, name: str, content: Content) -> None:
        index, self._files = self._files, self._files + 1
        await self._tasks.start(self._read(index, name, content), content.size)

    async def _read(self, index: int, name: str, content: Content) -> None:
        try:
            if self._last_was_thin and await self._read_place(index, name, content):
                return
            data = await content.read()
            async with aclosing(self._cage.study_slices(data, name, self._options)) as images:
                async for image in images:
                    if isinstance(image, ServiceError):
                        self._add_other(NotASlice(index, name, image))
                    else:
                        self._add_slice(await self._with_preview(SeriesSlice(index, name, image)), content)
        except Exception as error:  # noqa: BLE001 - one file must not end the study
            self._add_other(NotASlice(index, name, _error_of_file(error)))

    async def _read_place(self, index: int, name: str, content: Content) -> bool:
        """Whether the start of a file was enough to know the place of a thin slice."""
        start = await content.read_start()
        if not is_dicom(start):
            return False
        options = replace(self._options, is_whole=False)
        images = [image async for image in self._cage.study_slices(start, name, options)]
        for image in images:
            if isinstance(image, StudySlice):
                self._add_slice(SeriesSlice(index, name, image), content)
        return bool(images)

    async def _with_preview(self, slice_: SeriesSlice) -> SeriesSlice:
        """Replace the picture of a slice by a small JPEG if previews are asked for."""
        picture = slice_.image.picture
        if not self._previews or picture is None:
            return slice_
        preview = await asyncio.to_thread(lambda: jpeg(grey_image(picture)))
        return replace(slice_, image=replace(slice_.image, picture=None), preview=preview)

    def _add_slice(self, slice_: SeriesSlice, content: Content) -> None:
        self._last_was_thin = slice_.image.network_input is None
        if self._last_was_thin:
            self._held[slice_.file] = content
        self._slices.append(slice_)
        most = self._settings.max_study_slices
        if len(self._slices) > most:
            raise _too_large(f"The study has more than {most} slices")

    def _add_other(self, other: NotASlice) -> None:
        self._others.append(other)
        if len(self._others) > _MAX_OTHERS:
            raise _too_large(f"More than {_MAX_OTHERS} files and frames of the study have no slice")

    async def _decode(self, study: Study) -> None:
        """Decode the slices to read of which only the place is known, and let go of the files."""
        to_decode = study.to_decode()
        self._held = {file.index: self._held[file.index] for file in to_decode}
        for file in to_decode:
            content = self._held.pop(file.index)
            await self._tasks.start(self._decode_file(file, content), content.size)
        await self._tasks.wait()

    async def _decode_file(self, file: FileToDecode, content: Content) -> None:
        decoded: list[StudySlice | ServiceError] = []
        try:
            data = await content.read()
            # to its end: a worker whose frames are not all taken is ended
            async for image in self._cage.study_slices(data, file.name, file.options(self._options)):
                decoded.append(image)
        except Exception as error:  # noqa: BLE001 - as in _read
            decoded.append(_error_of_file(error))
        file.set_decoded(decoded)


def _too_large(what: str) -> UnusableImageError:
    return UnusableImageError(f"{what}; send its series one at a time.", code=ErrorCode.STUDY_TOO_LARGE)


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


@asynccontextmanager
async def open_study(state: ServiceState, options: ReadOptions, previews: bool = False) -> AsyncIterator[StudyReader]:
    """Open a reader of one study, which stops with the context."""
    reader = StudyReader(state, options, previews)
    try:
        yield reader
    finally:
        await reader.close()
