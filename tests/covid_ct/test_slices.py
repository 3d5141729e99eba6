from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless

from covid_ct.files.slices import SourceSlice, slices_of
from service.errors import ServiceError, UnusableImageError
from service.imaging.cage.blocking import BlockingCage
from service.imaging.decode import DecodeLimits, decode
from service.imaging.series.files import ReadOptions
from service.imaging.window import LUNG, Window
from tests.support.files.dicoms import ct, ct_dataset, phantom, written
from tests.support.files.studies import gzipped, volume

OPTIONS = ReadOptions(32, DecodeLimits(), keep_pictures=True)
NARROW = Window(40, 400)


@pytest.fixture(scope="module")
def decoders() -> Iterator[BlockingCage]:
    with BlockingCage() as cage:
        yield cage


def pixels(slice_: SourceSlice) -> np.ndarray:
    """The picture of a slice that was decoded here."""
    assert slice_.read is not None
    assert slice_.read.picture is not None
    return slice_.read.picture


def test_dicom_goes_out_whole_unless_it_has_frames_or_another_window(decoders: BlockingCage) -> None:
    single, several = ct(phantom()), ct(np.stack([phantom()] * 2))
    (usual,) = slices_of(single, "a", decoders, OPTIONS)
    assert (usual.name, usual.data, usual.window) == ("a", single, LUNG)
    frames = list(slices_of(several, "a", decoders, OPTIONS))
    assert [(slice_.name, slice_.data) for slice_ in frames] == [("a#0", b""), ("a#1", b"")]
    (narrow,) = slices_of(single, "a", decoders, replace(OPTIONS, window=NARROW))
    assert (narrow.name, narrow.data, narrow.window) == ("a", b"", NARROW)
    np.testing.assert_array_equal(pixels(narrow), decode(single, window=NARROW))


def test_the_slices_of_a_volume_are_numbered(decoders: BlockingCage) -> None:
    for heights in ([100.0, 110.0, 120.0], [100.0, 110.0]):
        data = gzipped(volume(heights).to_bytes())
        names = [slice_.name for slice_ in slices_of(data, "ct.nii.gz", decoders, OPTIONS)]
        assert names == [f"ct.nii.gz#{index}" for index in range(len(heights))]


def test_an_image_is_left_to_whoever_decodes_it(decoders: BlockingCage) -> None:
    assert list(slices_of(b"anything", "a.png", decoders, OPTIONS)) == [SourceSlice("a.png", b"anything")]


@pytest.mark.parametrize(
    "elements", [pytest.param({}, id="rescale"), pytest.param({"RescaleIntercept": 0}, id="Hounsfield units as stored")]
)
def test_hounsfield_units_have_the_window_that_was_asked_for(elements: dict[str, Any], decoders: BlockingCage) -> None:
    (slice_,) = slices_of(ct(phantom(), **elements), "a.dcm", decoders, replace(OPTIONS, window=NARROW))
    assert slice_.window == NARROW


def test_a_picture_in_a_dicom_file_has_no_window(decoders: BlockingCage) -> None:
    for grey in (np.full((32, 32), 9, np.uint8), np.zeros((32, 32, 3), np.uint8)):
        (slice_,) = slices_of(ct(grey), "a.dcm", decoders, replace(OPTIONS, window=NARROW))
        assert slice_.window is None


def test_a_damaged_frame_is_an_error_in_its_place(decoders: BlockingCage) -> None:
    whole = bytes(imagecodecs.jpegls_encode(phantom()))
    dataset = ct_dataset(np.stack([phantom()] * 3), JPEGLSLossless)
    dataset.PixelData = encapsulate([whole, whole[:200], whole])
    dataset["PixelData"].is_undefined_length = True
    slices = list(slices_of(written(dataset), "a", decoders, OPTIONS))
    assert [slice_.name for slice_ in slices] == ["a#0", "a#1", "a#2"]
    assert [isinstance(slice_.error, UnusableImageError) for slice_ in slices] == [False, True, False]


def test_another_modality_is_refused(decoders: BlockingCage) -> None:
    with pytest.raises(UnusableImageError, match="MR"):
        list(slices_of(ct(phantom(), Modality="MR"), "a", decoders, OPTIONS))


def test_a_screenshot_is_read_only_if_it_was_named(decoders: BlockingCage) -> None:
    shot = ct(phantom(), ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    assert [slice_.name for slice_ in slices_of(shot, "a", decoders, OPTIONS, named=True)] == ["a"]
    with pytest.raises(ServiceError) as caught:
        list(slices_of(shot, "a", decoders, OPTIONS))
    assert caught.value.code == "secondary_capture"
