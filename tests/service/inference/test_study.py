import asyncio
import gc
import io
import threading
import tracemalloc
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import pytest
from PIL import Image
from pydantic import ByteSize

from service.errors import ServiceError, UnusableImageError
from service.imaging.decode import DecodeLimits
from service.imaging.series.files import ReadOptions, StudySlice, read_study_file
from service.inference.service_state import ServiceState
from service.inference.study import open_study
from service.model.study import Study
from service.settings import Settings
from tests.support.files.studies import series, zipped
from tests.support.processes.client import png

pytestmark = pytest.mark.anyio

LIMIT = 10_000


class SlowDecoders:
    """Decoders that hold each file for a moment, and refuse it."""

    def __init__(self) -> None:
        self.held: list[int] = []
        self.most_bytes = self.most_files = 0

    async def study_slices(self, data: bytes, _name: str, _options: ReadOptions) -> AsyncIterator[ServiceError]:
        self.held.append(len(data))
        self.most_bytes, self.most_files = max(self.most_bytes, sum(self.held)), max(self.most_files, len(self.held))
        for _ in range(20):
            await asyncio.sleep(0)
        self.held.remove(len(data))
        if data:
            raise UnusableImageError("no slice")
        yield UnusableImageError("no bytes")


async def read(sizes: list[int]) -> SlowDecoders:
    decoders = SlowDecoders()
    state = cast(ServiceState, SimpleNamespace(settings=Settings(max_study_bytes=ByteSize(LIMIT)), cage=decoders))
    files = {f"{number}.dcm": bytes(128) + b"DICM" + bytes(size - 132) for number, size in enumerate(sizes)}
    async with open_study(state, ReadOptions(64, DecodeLimits())) as reader:
        await reader.add("study.zip", io.BytesIO(zipped(files)))
        with pytest.raises(UnusableImageError, match="No file is an axial"):
            await reader.finish()
    return decoders


async def test_large_files_of_a_small_zip_are_read_one_at_a_time() -> None:
    assert (await read([LIMIT] * 4)).most_bytes == LIMIT


@pytest.mark.parametrize("size", [LIMIT // 5, LIMIT // 3, LIMIT // 2, LIMIT * 2 // 3])
async def test_the_files_read_at_a_time_have_at_most_the_size_of_a_body(size: int) -> None:
    assert 0 < (await read([size] * 6)).most_bytes <= LIMIT


async def test_small_files_are_read_several_at_a_time() -> None:
    assert (await read([200] * 12)).most_files == 4


async def test_the_list_of_a_zip_is_read_beside_the_event_loop() -> None:
    class Watched(io.BytesIO):
        def seek(self, *args: int) -> int:
            threads.add(threading.get_ident())
            return super().seek(*args)

    threads: set[int] = set()
    state = cast(ServiceState, SimpleNamespace(settings=Settings(), cage=SlowDecoders()))
    async with open_study(state, ReadOptions(64, DecodeLimits())) as reader:
        await reader.add("study.zip", Watched(zipped({".hidden": b"1"})))
        with pytest.raises(UnusableImageError):
            await reader.finish()
    assert threads
    assert threading.get_ident() not in threads


async def test_a_refused_file_of_a_study_does_not_stay_in_memory() -> None:
    """Its error stays, whose frames hold the file; cycles would keep them until garbage is collected."""
    decoders = SlowDecoders()
    state = cast(ServiceState, SimpleNamespace(settings=Settings(), cage=decoders))
    async with open_study(state, ReadOptions(64, DecodeLimits())) as reader:
        gc.disable()
        tracemalloc.start()
        try:
            for number in range(20):
                await reader.add(f"{number}.dcm", io.BytesIO(bytes(128) + b"DICM" + bytes(1_000_000)))
            with pytest.raises(UnusableImageError):
                await reader.finish()
            assert tracemalloc.get_traced_memory()[0] < 5_000_000
        finally:
            tracemalloc.stop()
            gc.enable()


class Decoders:
    """Decoders in this process, with a fault at DICOM files."""

    async def study_slices(
        self, data: bytes, name: str, options: ReadOptions
    ) -> AsyncIterator[StudySlice | ServiceError]:
        if data[128:132] == b"DICM":
            raise ZeroDivisionError
        for slice_ in read_study_file(data, name, options):
            yield slice_


async def study_of(files: list[bytes], options: ReadOptions, *, previews: bool = False) -> Study:
    """The study of these files, before it is read."""
    state = cast(ServiceState, SimpleNamespace(settings=Settings(), cage=Decoders()))
    async with open_study(state, options, previews) as reader:
        for number, data in enumerate(files):
            await reader.add(str(number), io.BytesIO(data))
        return await reader.finish()


async def test_a_fault_at_a_file_is_a_row_of_the_study() -> None:
    study = await study_of([png(), bytes(128) + b"DICM" + bytes(8)], ReadOptions(64, DecodeLimits()))
    assert [len(only.slices) for only in study.series] == [1]
    assert [(other.name, other.error.code) for other in study.others] == [("1", "internal_error")]


async def test_the_frames_of_a_thin_slice_are_taken_to_their_end() -> None:
    """Otherwise its worker is ended, and starting a new one takes longer than the slice."""
    ended: list[tuple[int, ...] | None] = []

    class Frames:
        async def study_slices(
            self, data: bytes, name: str, options: ReadOptions
        ) -> AsyncIterator[StudySlice | ServiceError]:
            for slice_ in read_study_file(data, name, options):
                yield slice_
            ended.append(options.frames)

    state = cast(ServiceState, SimpleNamespace(settings=Settings(), cage=Frames()))
    async with open_study(state, ReadOptions(64, DecodeLimits(), thin_mm=2.5)) as reader:
        await reader.add("1.dcm", io.BytesIO(series([5.0], SliceThickness=1)[0]))
        await reader.finish()
    assert ended == [None, (0,)]


async def test_frames_without_a_slice_are_limited() -> None:
    class Frames(Decoders):
        async def study_slices(
            self, data: bytes, name: str, options: ReadOptions
        ) -> AsyncIterator[StudySlice | ServiceError]:
            del data, name, options
            for error in [UnusableImageError("a localizer")] * 30_000:
                yield error

    state = cast(ServiceState, SimpleNamespace(settings=Settings(), cage=Frames()))
    async with open_study(state, ReadOptions(64, DecodeLimits())) as reader:
        await reader.add("1.dcm", io.BytesIO(bytes(128) + b"DICM"))
        with pytest.raises(UnusableImageError, match="More than 20000 files and frames"):
            await reader.finish()


@pytest.mark.parametrize("previews", [False, True])
async def test_pictures_that_are_kept_are_small(previews: bool) -> None:
    options = ReadOptions(64, DecodeLimits(), keep_pictures=True)
    study = await study_of([png(side=1500)], options, previews=previews)
    slice_ = study.series[0].slices[0]
    if slice_.preview is None:
        assert slice_.image.picture is not None
        assert slice_.image.picture.nbytes <= 512**2
    else:
        assert slice_.image.picture is None
        assert Image.open(io.BytesIO(slice_.preview)).width == 512
