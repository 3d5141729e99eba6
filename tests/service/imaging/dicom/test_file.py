import logging
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from service.errors import ServiceError, UnusableImageError
from service.imaging.cage.blocking import BlockingCage
from service.imaging.decode import DecodeLimits, decode
from service.imaging.dicom.file import open_dicom
from service.imaging.orientation import UPRIGHT
from service.imaging.window import Window
from tests.support.files.dicoms import PATIENT, STREAMS, ct, ct_dataset, groups, phantom, written

STORED = phantom()
SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"


def windowed(hounsfield: NDArray[Any], centre: float = -600, width: float = 1500) -> NDArray[np.uint8]:
    """The window of the standard, by hand."""
    return np.rint(np.clip((hounsfield.astype(float) - centre) / width + 0.5, 0, 1) * 255).astype(np.uint8)


EXPECTED = windowed(STORED.astype(int) - 1024)[np.newaxis]


PADDED_RLE = np.concatenate([STORED.ravel(), np.zeros(63, np.uint16)])[np.newaxis]
INTERCEPT = groups(PixelValueTransformationSequence={"RescaleIntercept": -1024})


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(ct(STORED), id="explicit"),
        pytest.param(ct(STORED, ImplicitVRLittleEndian), id="implicit"),
        pytest.param(ct(STORED, DeflatedExplicitVRLittleEndian), id="deflated"),
        pytest.param(
            ct(STORED).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"),
            id="explicit elements under the implicit syntax",
        ),
        pytest.param(ct(STORED, BitsStored=12, HighBit=11), id="12 bits of 16"),
        pytest.param(ct((STORED.astype(int) - 1024).astype(np.int16), RescaleIntercept=0), id="signed"),
        pytest.param(ct(STORED * 2, RescaleSlope=0.5), id="slope"),
        pytest.param(ct(STORED, RescaleSlope="1.000000").replace(b"1.000000", b"1,000000"), id="decimal comma"),
        pytest.param(
            ct(STORED, SharedFunctionalGroupsSequence=[INTERCEPT], RescaleSlope=None, RescaleIntercept=None),
            id="an intercept alone, in the functional groups",
        ),
        pytest.param(ct(STORED, RLELossless), id="rle"),
        pytest.param(ct(STORED, JPEG2000Lossless), id="jpeg 2000"),
        pytest.param(written(ct_dataset(STORED), preamble=False), id="no preamble"),
        pytest.param(ct(STORED)[128:], id="the mark at the first byte"),
        pytest.param(ct(STORED, PixelData=STORED.tobytes() + bytes(2 * 64 - 2)), id="padding of less than a row"),
        pytest.param(ct(PADDED_RLE, RLELossless, Rows=64, Columns=64), id="padding of less than a row in RLE"),
    ],
)
def test_every_way_of_writing_a_slice_gives_the_same_windowed_grey(data: bytes) -> None:
    np.testing.assert_array_equal(decode(data), EXPECTED)


def test_the_window_is_minus_1350_to_150_and_another_can_be_chosen() -> None:
    hounsfield = np.tile(np.array([-1400, -1350, -600, 150, 200], np.int16), (20, 8))
    data = ct(hounsfield, RescaleIntercept=0)
    assert decode(data)[0, 0, :5].tolist() == [0, 0, 128, 255, 255]
    soft = decode(data, window=Window(40, 400))
    assert soft[0, 0, :5].tolist() == [0, 0, 0, int(np.rint((150 - 40) / 400 * 255 + 127.5)), 230]


def test_monochrome1_inverts_a_picture() -> None:
    picture = EXPECTED[0]
    np.testing.assert_array_equal(decode(ct(picture, PhotometricInterpretation="MONOCHROME1"))[0], 255 - picture)


@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 1, "RescaleIntercept": 0}])
def test_an_8_bit_capture_without_hounsfield_units_stays_as_it_is(rescale: dict[str, Any]) -> None:
    grey = EXPECTED[0]
    np.testing.assert_array_equal(decode(ct(grey, **rescale))[0], grey)


def test_a_colour_capture_becomes_luma() -> None:
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 200
    assert set(decode(ct(red)).flat) == {round(0.299 * 200)}


def test_frames_come_one_by_one_each_with_its_own_rescale() -> None:
    rescales = [{"RescaleSlope": 1, "RescaleIntercept": intercept} for intercept in (-1024, -524)]
    frames = [groups(PixelValueTransformationSequence=rescale) for rescale in rescales]
    file = open_dicom(ct(np.stack([STORED, STORED]), PerFrameFunctionalGroupsSequence=frames))
    np.testing.assert_array_equal(file.frame(0, UPRIGHT)[np.newaxis], EXPECTED)
    np.testing.assert_array_equal(file.frame(1, UPRIGHT), windowed(STORED.astype(int) - 524))


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.dcm")), ids=lambda path: path.name)
def test_what_pydicom_ships_is_read_where_it_is_ct_and_refused_where_not(path: Path) -> None:
    data = path.read_bytes()
    dataset = pydicom.dcmread(path, force=True, specific_tags=["Modality", "Rows", "Columns"], stop_before_pixels=True)
    if dataset.get("Modality") == "CT":
        assert decode(data).shape == (1, dataset.Rows, dataset.Columns)
    else:
        with pytest.raises(ServiceError):
            decode(data)


def test_a_real_ct_equals_pydicoms_own_pixels_through_the_window() -> None:
    path = SHIPPED / "CT_small.dcm"
    dataset = pydicom.dcmread(path)
    hounsfield = dataset.pixel_array.astype(int) * int(dataset.RescaleSlope) + int(dataset.RescaleIntercept)
    np.testing.assert_array_equal(decode(path.read_bytes())[0], windowed(hounsfield))


def test_nothing_of_the_patient_gets_into_messages_warnings_or_logs(caplog: pytest.LogCaptureFixture) -> None:
    marker = PATIENT.encode()
    whole = ct(STORED, RescaleIntercept="-1024")
    files = [
        whole,
        whole[:-10],
        whole.replace(b"\x08\x00\x60\x00CS\x02\x00CT", b"\x08\x00\x60\x00CS\x08\x00MARKER^1"),
        whole.replace(b"-1024 ", b"MARKER"),
        whole.replace(b"MONOCHROME2", b"MARKER     "),
        whole.replace(b"1.2.840.10008.1.2.1\0", b"MARKER^PATIENT.1.2.1"),
        whole.replace(b"\x08\x00\x60\x00CS\x02\x00CT", b"\x08\x00\x05\x00CS\x06\x00MARKER"),
    ]
    assert marker in whole
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        messages = ""
        for data in files:
            try:
                decode(data)
            except ServiceError as error:
                messages += f"{error} {error.__cause__}"
    assert messages
    assert "MARKER" not in messages + caplog.text + "".join(str(warning.message) for warning in seen)
    assert not seen


@pytest.mark.parametrize("offsets", [(64, 2**14), (64, 2**31), (64, 2**32 - 1), (2**14, 64), (0, 64), (64, 63)])
def test_segments_of_rle_outside_the_frame_are_refused_before_memory_behind_it_is_read(
    cage: BlockingCage, offsets: tuple[int, int]
) -> None:
    data = ct(STORED, RLELossless)
    header = struct.pack("<2L", 2, 64)
    start = data.index(header)
    damaged = data[:start] + struct.pack("<3L", 2, *offsets) + data[start + 12 :]
    for _ in range(3):  # the memory behind it differs
        with pytest.raises(UnusableImageError, match="truncated or damaged"):
            cage.decode(damaged, DecodeLimits(max_pixels=10_000))


COMPRESSED = [ct(STORED, syntax) for syntax in (RLELossless, *STREAMS) if syntax != JPEGBaseline8Bit]


@settings(max_examples=300, deadline=None)
@given(
    flips=st.lists(st.integers(0, 10**6), min_size=1, max_size=8),
    cut=st.integers(0, 10**5),
    data=st.sampled_from([ct(STORED), ct(STORED, ImplicitVRLittleEndian), *COMPRESSED]),
)
def test_a_damaged_dicom_file_is_decoded_or_refused(
    cage: BlockingCage, flips: list[int], cut: int, data: bytes
) -> None:
    damaged = bytearray(data[: len(data) - cut] if cut < len(data) and cut % 3 == 0 else data)
    for flip in flips:
        damaged[flip // 8 % len(damaged)] ^= 1 << flip % 8
    detail = ""
    try:
        decoded = cage.decode(bytes(damaged), DecodeLimits(max_pixels=10_000)).slice_
    except ServiceError as error:
        detail = error.detail
    else:
        assert decoded.ndim == 3
    assert "crashed" not in detail


@given(body=st.binary(max_size=300))
def test_any_bytes_after_a_dicom_mark_are_refused_as_unusable(body: bytes) -> None:
    with pytest.raises(UnusableImageError):
        decode(bytes(128) + b"DICM" + body)
