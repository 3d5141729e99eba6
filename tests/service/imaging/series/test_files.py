import contextlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import RLELossless

from service.errors import ServiceError, UnusableImageError
from service.imaging.decode import DecodeLimits, decode, to_input
from service.imaging.series.files import COMPANIONS, ReadOptions, StudySlice, read_study_file
from service.imaging.series.grouping import group_series
from tests.support.files.dicoms import PATIENT, ct, ct_dataset, phantom, written
from tests.support.files.studies import gzipped, series, volume
from tests.support.processes.client import png

OPTIONS = ReadOptions(input_size=32, limits=DecodeLimits())
WHOLE = ReadOptions(input_size=32, limits=DecodeLimits(), keep_pictures=True, keep_headers=True)


def read(data: bytes, name: str = "a", options: ReadOptions = OPTIONS) -> list[StudySlice]:
    """The slices of a file without errors."""
    items = read_study_file(data, name, options)
    slices = [slice_ for slice_ in items if isinstance(slice_, StudySlice)]
    assert len(slices) == len(items)
    return slices


def reason(data: bytes, name: str = "a") -> ServiceError:
    """The reason of a file without a slice."""
    (items,) = read_study_file(data, name, OPTIONS)
    assert isinstance(items, ServiceError)
    return items


def picture(side: int = 40) -> bytes:
    """A grey PNG."""
    file = io.BytesIO()
    Image.fromarray(np.full((side, side), 90, np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_a_slice_is_what_a_prediction_of_one_slice_sees() -> None:
    (data,) = series([10.0])
    (slice_,) = read(data)
    assert slice_.network_input is not None
    assert np.array_equal(slice_.network_input, to_input(decode(data), 32))
    assert slice_.picture is None


def test_pictures_and_headers_are_kept_if_asked() -> None:
    (data,) = series([10.0])
    (slice_,) = read(data, options=WHOLE)
    assert slice_.picture is not None
    assert (slice_.picture == decode(data)).all()
    assert slice_.place.source is not None
    assert PATIENT.encode() in slice_.place.source.header
    assert len(slice_.place.source.header) < len(data) - 64 * 64 * 2


def test_a_nifti_volume_gives_the_slices_of_the_same_dicom_series() -> None:
    heights = [100.0, 110.0, 120.0]
    dicom = [slice_ for data in series(heights) for slice_ in read(data)]
    nifti = read(gzipped(volume(heights).to_bytes()), "a.nii.gz")
    for one, other in zip(dicom, nifti, strict=True):
        assert one.network_input is not None
        assert other.network_input is not None
        assert np.array_equal(one.network_input, other.network_input)
        assert one.place.plane is not None
        assert other.place.plane is not None
        assert one.place.plane.position == pytest.approx(other.place.plane.position)
    assert len(group_series([slice_.place for slice_ in nifti])) == 1


def test_pictures_of_a_folder_are_a_series_in_the_order_of_their_names() -> None:
    names = ["b/s10.png", "b/s9.png", "a/s1.png", "b/S11.png"]
    places = [read(picture(), name)[0].place for name in names]
    assert [items.slices for items in group_series(places)] == [(1, 0, 3), (2,)]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Modality": "SR"}, "not_ct"),
        ({"Modality": "SEG"}, "not_ct"),
        ({"Modality": "PR"}, "not_ct"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "secondary_capture"),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "OTHER", "CT_SOM5 PROT"]}, "secondary_capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary_capture"),
        ({"RescaleType": "Z_EFF"}, "not_hounsfield"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "not_axial"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "not_axial"),
        ({"PixelData": None}, "no_pixel_data"),
        ({"EncapsulatedDocument": b"%PDF"}, "no_pixel_data"),
    ],
)
def test_what_a_study_has_beside_its_slices_is_a_companion(changes: dict[str, Any], code: str) -> None:
    error = reason(ct(phantom(), **changes))
    assert error.code == code
    assert error.code in COMPANIONS


@pytest.mark.parametrize("data", [b"notes", b"%PDF-1.4", b"<html>"])
def test_other_files_are_companions(data: bytes) -> None:
    assert reason(data).code in COMPANIONS


def test_damaged_files_are_failures() -> None:
    (data,) = series([10.0])
    for damaged in (data[:-100], picture()[:60], b""):
        assert reason(damaged).code not in COMPANIONS


def test_a_damaged_frame_does_not_cost_the_others() -> None:
    dataset = ct_dataset(np.stack([phantom()] * 3))
    dataset.PerFrameFunctionalGroupsSequence = []
    for kind in ("VOLUME", "LOCALIZER", "VOLUME"):
        dataset.PerFrameFunctionalGroupsSequence.append(type(dataset)())
        frame_type = type(dataset)()
        frame_type.FrameType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
        dataset.PerFrameFunctionalGroupsSequence[-1].CTImageFrameTypeSequence = [frame_type]
    items = read_study_file(written(dataset), "a", OPTIONS)
    assert [isinstance(slice_, StudySlice) for slice_ in items] == [True, False, True]


def test_too_many_frames_are_refused() -> None:
    options = ReadOptions(input_size=32, limits=DecodeLimits(max_frames=2))
    (error,) = read_study_file(ct(np.stack([phantom()] * 3)), "a", options)
    assert isinstance(error, ServiceError)
    assert error.code == "too_many_frames"


THIN = replace(OPTIONS, thin_mm=2.5)


@pytest.mark.parametrize(
    ("thickness", "is_decoded"), [(1.0, False), (2.4, False), (2.5, True), (5.0, True), (None, True)]
)
def test_of_a_thin_slice_only_the_place_is_read(thickness: float | None, is_decoded: bool) -> None:
    (data,) = series([10.0], SliceThickness=thickness)
    (slice_,), (whole,) = read_study_file(data, "a", THIN), read_study_file(data, "a", OPTIONS)
    assert isinstance(slice_, StudySlice)
    assert isinstance(whole, StudySlice)
    assert slice_.place == whole.place
    assert (slice_.network_input is not None) == is_decoded


@pytest.mark.parametrize("compress", [False, True])
def test_the_start_of_a_file_has_the_place_of_a_thin_slice(compress: bool) -> None:
    (data,) = series([10.0], SliceThickness=1)
    if compress:
        dataset = pydicom.dcmread(io.BytesIO(data))
        dataset.compress(RLELossless)
        data = written(dataset)
    start = replace(THIN, is_whole=False)
    (slice_,) = read_study_file(data[:-100], "a", start)
    (whole,) = read_study_file(data, "a", THIN)
    assert slice_ == whole


@pytest.mark.parametrize(
    "start",
    [
        series([10.0], SliceThickness=5)[0][:2000],
        series([10.0], SliceThickness=1)[0][:300],
        ct(np.stack([phantom()] * 3), SliceThickness=1)[:2000],
        png()[:20],
        b"",
    ],
    ids=["thick", "within the header", "several frames", "a picture", "nothing"],
)
def test_a_start_that_is_not_enough_gives_nothing(start: bytes) -> None:
    assert read_study_file(start, "a", replace(THIN, is_whole=False)) == []


def test_the_places_of_a_thin_volume_are_read_without_its_voxels() -> None:
    data = volume([10.0, 11.0, 12.0]).to_bytes()
    whole, thin = read(data, "a.nii"), read(data[:-3000], "a.nii", THIN)
    assert [slice_.place for slice_ in thin] == [slice_.place for slice_ in whole]
    assert all(slice_.network_input is None for slice_ in thin)


def test_pictures_are_reduced_to_the_longest_side_that_is_asked_for() -> None:
    options = replace(WHOLE, picture_side=128)
    sizes = [read(picture(side), options=options)[0].picture for side in (40, 300)]
    assert [kept is not None and kept.shape for kept in sizes] == [(1, 40, 40), (1, 128, 128)]


WRONG_KINDS = [
    pytest.param(0x52009229, "OV", bytes(8), id="shared groups"),
    pytest.param(0x52009230, "SL", [1], id="groups of frames"),
    pytest.param(0x52009230, "UT", "text", id="groups of frames as text"),
    pytest.param(0x00283000, "LO", ["1", "2"], id="table"),
    pytest.param(0x00080008, "UL", [1, 2], id="numbers as image type"),
    pytest.param(0x00080008, "OB", b"1e400 ", id="bytes as image type"),
    pytest.param(0x00200013, "LT", "9" * 400, id="number of 400 digits"),
]


@pytest.mark.parametrize(("tag", "kind", "value"), WRONG_KINDS)
def test_an_element_of_a_wrong_kind_is_damage_or_ignored(tag: int, kind: str, value: Any) -> None:
    dataset = ct_dataset(phantom())
    dataset.add_new(tag, kind, value)
    for items in read_study_file(written(dataset), "a", WHOLE):
        assert isinstance(items, StudySlice) or items.code == "damaged_image"
    with contextlib.suppress(UnusableImageError):
        decode(written(dataset))


@pytest.mark.parametrize("number", ["inf", "1e400", "9" * 400])
def test_an_instance_number_that_is_no_number_is_ignored(number: str) -> None:
    dataset = ct_dataset(phantom())
    dataset.add_new("InstanceNumber", "LT", number)
    (slice_,) = read(written(dataset).replace(b"\x20\0\x13\0LT", b"\x20\0\x13\0IS"))
    assert slice_.place.order == (0, 0)
