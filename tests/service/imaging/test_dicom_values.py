"""Samples of a CT file: masked, extended, padded, through tables and rescales, whatever way they are written."""

import io
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, RLELossless

from service.errors import UnusableImageError
from service.imaging.decode import decode
from tests.support.files.dicoms import ct, ct_dataset, phantom, written

STORED = phantom()
SIGNED = (STORED.astype(int) - 1024).astype(np.int16)
EXPECTED = decode(ct(STORED))
GREY = EXPECTED[0]
TWELVE: dict[str, Any] = {"BitsStored": 12, "HighBit": 11}


def jpeg_2000(samples: NDArray[Any], **changes: Any) -> bytes:
    stream = bytes(imagecodecs.jpeg2k_encode(samples, codecformat="j2k", reversible=True, level=0))
    dataset = ct_dataset(STORED, JPEG2000Lossless, PixelData=encapsulate([stream]), **changes)
    dataset["PixelData"].is_undefined_length = True
    return written(dataset)


def lossless(samples: NDArray[Any], **changes: Any) -> bytes:
    stream = bytes(imagecodecs.jpeg8_encode(samples, lossless=True, predictor=1, bitspersample=16))
    dataset = ct_dataset(STORED, "1.2.840.10008.1.2.4.70", PixelData=encapsulate([stream]), **changes)
    dataset["PixelData"].is_undefined_length = True
    return written(dataset)


def jpeg_ls(samples: NDArray[Any], **changes: Any) -> bytes:
    stream = bytes(imagecodecs.jpegls_encode(samples))
    dataset = ct_dataset(STORED, "1.2.840.10008.1.2.4.80", PixelData=encapsulate([stream]), **changes)
    dataset["PixelData"].is_undefined_length = True
    return written(dataset)


def rle(samples: NDArray[Any], **changes: Any) -> bytes:
    dataset = ct_dataset(samples)
    dataset.compress(RLELossless, samples, generate_instance_uid=False)
    for name, value in changes.items():
        setattr(dataset, name, value)
    return written(dataset)


def native(samples: NDArray[Any], **changes: Any) -> bytes:
    return ct(samples, **changes)


WRITERS = [native, lossless, jpeg_2000, jpeg_ls, rle]


@pytest.mark.parametrize("write", WRITERS)
def test_bits_above_the_stored_ones_are_no_part_of_a_sample(write: Any) -> None:
    overlay = STORED.copy()
    overlay[:20, :20] |= 0x8000
    np.testing.assert_array_equal(decode(write(overlay, **TWELVE)), EXPECTED)


@pytest.mark.parametrize("write", WRITERS)
def test_signed_samples_of_12_bits_are_extended(write: Any) -> None:
    bits = (SIGNED.astype(int) & 0xFFF).astype(np.uint16)
    data = write(bits, PixelRepresentation=1, RescaleIntercept=0, **TWELVE)
    np.testing.assert_array_equal(decode(data), EXPECTED)


@pytest.mark.parametrize("signed", [0, 1])
def test_a_jpeg_2000_stream_decides_whether_its_samples_are_signed(signed: int) -> None:
    data = jpeg_2000(SIGNED, PixelRepresentation=signed, RescaleIntercept=0)
    np.testing.assert_array_equal(decode(data), EXPECTED)


@pytest.mark.parametrize("write", [native, lossless, jpeg_2000])
def test_samples_in_the_high_bits_are_moved_down(write: Any) -> None:
    np.testing.assert_array_equal(decode(write(STORED << 4, BitsStored=12, HighBit=15)), EXPECTED)


@pytest.mark.parametrize("high", [5, 16])
def test_a_high_bit_that_cannot_be_is_named(high: int) -> None:
    with pytest.raises(UnusableImageError, match=r"HighBit \(0028,0102\)"):
        decode(ct(STORED, BitsStored=12, HighBit=high))


def big_endian(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.save_as(file, implicit_vr=False, little_endian=False)
    return file.getvalue()


def test_big_endian_samples_of_8_bits_may_be_bytes_or_words() -> None:
    plain: dict[str, Any] = {"RescaleSlope": 1, "RescaleIntercept": 0}
    for vr, pixels in (("OB", GREY), ("OW", GREY.reshape(-1, 2)[:, ::-1].reshape(GREY.shape))):
        dataset = ct_dataset(GREY, PixelData=pixels.tobytes(), **plain)
        dataset["PixelData"].VR = vr
        np.testing.assert_array_equal(decode(big_endian(dataset))[0], GREY)
    deep = ct_dataset(STORED, PixelData=STORED.byteswap().tobytes())
    deep["PixelData"].VR = "OW"
    np.testing.assert_array_equal(decode(big_endian(deep)), EXPECTED)


@pytest.mark.parametrize(
    ("value", "limit", "signed"), [(63536, None, 0), (-2000, None, 1), (63000, 65000, 0), (65000, 63000, 0)]
)
def test_padding_is_black_whatever_its_value(value: int, limit: int | None, signed: int) -> None:
    outside = np.hypot(*(np.mgrid[:64, :64] - 31.5)) > 31
    padded = STORED.copy()
    padded[outside] = 63536
    dataset = ct_dataset(padded, PixelRepresentation=signed)
    dataset.add_new(0x00280120, "SS" if signed else "US", value)
    if limit is not None:
        dataset.add_new(0x00280121, "US", limit)
    found = decode(written(dataset))[0]
    assert not found[outside].any()
    np.testing.assert_array_equal(found[~outside], GREY[~outside])


def test_padding_is_black_in_a_monochrome1_picture_too() -> None:
    picture = GREY.copy()
    picture[:5] = 7
    dataset = ct_dataset(picture, PhotometricInterpretation="MONOCHROME1")
    dataset.add_new(0x00280120, "US", 7)
    found = decode(written(dataset))[0]
    assert not found[picture == 7].any()
    np.testing.assert_array_equal(found[picture != 7], 255 - picture[picture != 7])


def test_a_modality_table_gives_hounsfield_units() -> None:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 16]
    item.ModalityLUTType = "HU"
    item.add_new(0x00283006, "OW", np.arange(4096, dtype=np.uint16).tobytes())
    dataset = ct_dataset(STORED, RescaleSlope=None, RescaleIntercept=None, ModalityLUTSequence=Sequence([item]))
    item["LUTDescriptor"].VR = "US"
    found = decode(written(dataset))[0]
    hounsfield = STORED.astype(float)
    np.testing.assert_array_equal(found, np.rint(np.clip((hounsfield + 600) / 1500 + 0.5, 0, 1) * 255))


def palette(values: NDArray[np.uint16], blue: NDArray[np.uint16] | None = None) -> bytes:
    dataset = ct_dataset(GREY, PhotometricInterpretation="PALETTE COLOR")
    for number, table in ((1, values), (2, values), (3, values if blue is None else blue)):
        dataset.add_new(0x00281100 + number, "US", [256, 0, 16])
        dataset.add_new(0x00281200 + number, "OW", table.tobytes())
    return written(dataset)


def test_a_palette_of_greys_is_looked_up_and_a_coloured_one_refused() -> None:
    ramp = (255 - np.arange(256, dtype=np.uint16)) * 257
    np.testing.assert_array_equal(decode(palette(ramp))[0], 255 - GREY)
    with pytest.raises(UnusableImageError, match="coloured palette") as caught:
        decode(palette(ramp, ramp[::-1]))
    assert caught.value.code == "unsupported_colour_mode"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"RescaleSlope": None}, id="no slope"),
        pytest.param({"RescaleSlope": ""}, id="empty slope"),
        pytest.param({"RescaleIntercept": ["-1024", "-1024"]}, id="twice the same intercept"),
        pytest.param({"Modality": None}, id="no modality in a file of the CT class"),
        pytest.param({"Modality": ""}, id="empty modality in a file of the CT class"),
        pytest.param({"PhotometricInterpretation": None}, id="no photometric interpretation"),
        pytest.param({"PhotometricInterpretation": "MONOCHROME1"}, id="monochrome1 with a rescale"),
    ],
)
def test_an_element_that_says_nothing_new_may_be_missing(changes: dict[str, Any]) -> None:
    np.testing.assert_array_equal(decode(ct(STORED, **changes)), EXPECTED)


def test_an_intercept_alone_in_the_functional_groups_has_slope_1() -> None:
    transformation, group = Dataset(), Dataset()
    transformation.RescaleIntercept = -1024
    group.PixelValueTransformationSequence = Sequence([transformation])
    plain: dict[str, Any] = {"RescaleSlope": None, "RescaleIntercept": None}
    data = ct(STORED, SharedFunctionalGroupsSequence=Sequence([group]), **plain)
    np.testing.assert_array_equal(decode(data), EXPECTED)


def test_decimal_commas_are_read() -> None:
    data = ct(STORED, RescaleSlope="1.000000").replace(b"1.000000", b"1,000000")
    np.testing.assert_array_equal(decode(data), EXPECTED)


@pytest.mark.parametrize(
    ("data", "telling"),
    [
        (ct(STORED, RescaleSlope="1.000000").replace(b"1.000000", b"one     "), r"RescaleSlope \(0028,1053\)"),
        (ct(STORED, RescaleSlope=0), r"RescaleSlope \(0028,1053\)"),
        (ct(STORED, RescaleIntercept=["-1024", "-24"]), r"RescaleIntercept \(0028,1052\)"),
        (ct(STORED, Rows=None), r"Rows \(0028,0010\)"),
    ],
)
def test_a_malformed_element_is_named(data: bytes, telling: str) -> None:
    with pytest.raises(UnusableImageError, match=telling) as caught:
        decode(data)
    assert caught.value.code == "damaged_image"


@pytest.mark.parametrize("tail", [b"\0" * 200_000, b"\xff" * 40, b"\0" * 512])
@pytest.mark.parametrize("write", [native, jpeg_2000])
def test_bytes_after_the_pixels_are_not_read(write: Any, tail: bytes) -> None:
    np.testing.assert_array_equal(decode(write(STORED) + tail), EXPECTED)


def test_compressed_pixels_without_their_delimiter_are_read_and_cut_ones_refused() -> None:
    data = jpeg_2000(STORED)
    np.testing.assert_array_equal(decode(data[:-8]), EXPECTED)
    for keep in range(len(data) // 2, len(data) - 20, 211):
        with pytest.raises(UnusableImageError, match="truncated"):
            decode(data[:keep])


def test_the_mark_may_be_at_the_first_byte() -> None:
    np.testing.assert_array_equal(decode(ct(STORED)[128:]), EXPECTED)


@pytest.mark.parametrize("signed", [False, True])
def test_ct_without_a_rescale_is_refused_not_shown_in_the_window_of_the_file(signed: bool) -> None:
    """Stored values in a window for Hounsfield units changed an involvement of 0.09 to 0.81."""
    samples = STORED.astype(np.int16) if signed else STORED
    data = ct(samples, RescaleSlope=None, RescaleIntercept=None, WindowCenter=-600, WindowWidth=1500)
    with pytest.raises(UnusableImageError, match="no RescaleSlope") as caught:
        decode(data)
    assert caught.value.code == "not_hounsfield"


@pytest.mark.parametrize("unit", ["Z_EFF", "MGML", "ED"])
@pytest.mark.parametrize("per_frame", [False, True])
def test_a_rescale_to_another_unit_is_refused_by_name(unit: str, per_frame: bool) -> None:
    if per_frame:
        group, transformation = Dataset(), Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = 1, -1024, unit
        group.PixelValueTransformationSequence = Sequence([transformation])
        changes: dict[str, Any] = {"SharedFunctionalGroupsSequence": Sequence([group])}
    else:
        changes = {"RescaleType": unit}
    with pytest.raises(UnusableImageError, match=f"the unit {unit}") as caught:
        decode(ct(STORED, **changes))
    assert caught.value.code == "not_hounsfield"


@pytest.mark.parametrize("unit", ["HU", "HU_MOD", "US", ""])
def test_a_rescale_to_hounsfield_units_or_to_no_named_unit_is_read(unit: str) -> None:
    np.testing.assert_array_equal(decode(ct(STORED, RescaleType=unit)), decode(ct(STORED)))
