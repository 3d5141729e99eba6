"""The files of a study through workers: the same slices as in this process, and files that go wrong."""

import dataclasses

import numpy as np
import pytest

from service.errors import ServiceError
from service.imaging.cage.study import pack_slices, study_order, unpack_slice
from service.imaging.decode import DecodeLimits
from service.imaging.series.files import ReadOptions, StudySlice, read_study_file
from tests.service.imaging.cage.test_cage import ENDLESS, caged
from tests.support.files.dicoms import ct, phantom
from tests.support.files.studies import gzipped, series, volume
from tests.support.processes.client import png

pytestmark = pytest.mark.anyio

PLAIN = ReadOptions(input_size=32, limits=DecodeLimits())
WHOLE = dataclasses.replace(PLAIN, keep_pictures=True, keep_headers=True)
THIN = dataclasses.replace(WHOLE, thin_mm=100.0)
SOME = dataclasses.replace(WHOLE, frames=(2, 0))


def same(one: StudySlice | ServiceError, other: StudySlice | ServiceError) -> bool:
    """Whether two slices, or the codes of two errors, are equal."""
    if isinstance(one, ServiceError) or isinstance(other, ServiceError):
        return isinstance(one, ServiceError) and isinstance(other, ServiceError) and one.code == other.code
    pixels = ((one.network_input, other.network_input), (one.picture, other.picture))
    same_pixels = all(
        here is there is None or (here is not None and there is not None and np.array_equal(here, there))
        for here, there in pixels
    )
    return (one.place, one.frame) == (other.place, other.frame) and same_pixels


@pytest.mark.parametrize("options", [PLAIN, WHOLE, THIN])
async def test_workers_give_the_slices_of_this_process(options: ReadOptions) -> None:
    files = [
        series([10.0], directions=(0.0, 1.0, 0.0, -1.0, 0.0, 0.0))[0],
        ct(np.stack([phantom()] * 3)),
        gzipped(volume([10.0, 20.0, 30.0]).to_bytes()),
        png(),
    ]
    async with caged() as cage:
        for data in files:
            here = read_study_file(data, "folder/name 7", options)
            there = [slice_ async for slice_ in cage.study_slices(data, "folder/name 7", options)]
            assert len(here) == len(there)
            assert all(same(one, other) for one, other in zip(here, there, strict=True))


async def test_some_frames_of_a_file_come_in_their_order() -> None:
    async with caged() as cage:
        for data in (ct(np.stack([phantom()] * 3)), gzipped(volume([10.0, 20.0, 30.0]).to_bytes())):
            here = read_study_file(data, "a.nii.gz", SOME)
            there = [slice_ async for slice_ in cage.study_slices(data, "a.nii.gz", SOME)]
            assert [slice_.frame for slice_ in here if isinstance(slice_, StudySlice)] == [2, 0]
            assert all(same(one, other) for one, other in zip(here, there, strict=True))


async def test_an_endless_file_is_ended_and_the_next_is_read() -> None:
    async with caged(seconds=0.5) as cage:
        with pytest.raises(ServiceError) as caught:
            _ = [slice_ async for slice_ in cage.study_slices(ENDLESS, "a", PLAIN)]
        assert caught.value.code == "limit_exceeded"
        (slice_,) = [slice_ async for slice_ in cage.study_slices(png(), "a", PLAIN)]
        assert isinstance(slice_, StudySlice)


def test_frames_that_were_answered_are_left_out() -> None:
    data = ct(np.stack([phantom()] * 3))
    items = list(pack_slices(study_order("a", PLAIN) | {"start": 2}, data))
    assert len(items) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("place", {}), ("shape", [9999, 9999]), ("shape", ["x", 1]), ("header", "x")]
)
def test_a_worker_that_lies_has_a_damaged_file(name: str, value: object) -> None:
    (items,) = pack_slices(study_order("a", WHOLE) | {"start": 0}, series([10.0])[0])
    assert not isinstance(items, ServiceError)
    head, parts = items
    payload = b"".join(parts)
    slice_, header = unpack_slice(head, payload, 32, b"")
    assert slice_.place.source is not None
    assert slice_.place.source.header == header != b""
    with pytest.raises(ServiceError, match="crashed"):
        unpack_slice(head | {name: value}, payload, 32, b"")
    with pytest.raises(ServiceError, match="crashed"):
        unpack_slice(head, payload[:100], 32, b"")


def test_a_number_beyond_all_limits_from_a_worker_is_damage() -> None:
    (packed,) = pack_slices(study_order("a", PLAIN) | {"start": 0}, series([10.0])[0])
    assert not isinstance(packed, ServiceError)
    head, parts = packed
    head["place"]["order"] = [10**400]
    with pytest.raises(ServiceError, match="damaged"):
        unpack_slice(head, b"".join(parts), PLAIN.input_size, b"")
