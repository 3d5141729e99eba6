"""Samples of a CT file: masked, extended, padded, through tables and rescales, whatever way they are written."""

import io
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from service.errors import UnusableImageError
from service.imaging.decode import decode
from tests.support.files.dicoms import ct, ct_dataset, palette, phantom, written

STORED = phantom()
SIGNED = (STORED.astype(int) - 1024).astype(np.int16)
EXPECTED = decode(ct(STORED))
GREY = EXPECTED[0]
TWELVE: dict[str, Any] = {"BitsStored": 12, "HighBit": 11}


SYNTAXES = [ExplicitVRLittleEndian, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_bits_above_the_stored_ones_are_no_part_of_a_sample(syntax: str) -> None:
    overlay = STORED.copy()
    overlay[:20, :20] |= 0x8000
    np.testing.assert_array_equal(decode(ct(overlay, syntax, **TWELVE)), EXPECTED)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_signed_samples_of_12_bits_are_extended(syntax: str) -> None:
    bits = (SIGNED.astype(int) & 0xFFF).astype(np.uint16)
    data = ct(bits, syntax, PixelRepresentation=1, RescaleIntercept=0, **TWELVE)
    np.testing.assert_array_equal(decode(data), EXPECTED)


@pytest.mark.parametrize("signed", [0, 1])
def test_a_jpeg_2000_stream_decides_whether_its_samples_are_signed(signed: int) -> None:
    data = ct(SIGNED, JPEG2000Lossless, PixelRepresentation=signed, RescaleIntercept=0)
    np.testing.assert_array_equal(decode(data), EXPECTED)


@pytest.mark.parametrize("syntax", SYNTAXES[:4:3])
def test_samples_in_the_high_bits_are_moved_down(syntax: str) -> None:
    np.testing.assert_array_equal(decode(ct(STORED << 4, syntax, BitsStored=12, HighBit=15)), EXPECTED)


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
    grey = decode(written(dataset))[0]
    assert not grey[outside].any()
    np.testing.assert_array_equal(grey[~outside], GREY[~outside])


def test_padding_is_black_in_a_monochrome1_picture_too() -> None:
    picture = GREY.copy()
    picture[:5] = 7
    dataset = ct_dataset(picture, PhotometricInterpretation="MONOCHROME1")
    dataset.add_new(0x00280120, "US", 7)
    grey = decode(written(dataset))[0]
    assert not grey[picture == 7].any()
    np.testing.assert_array_equal(grey[picture != 7], 255 - picture[picture != 7])


def test_a_modality_table_gives_hounsfield_units() -> None:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 16]
    item.ModalityLUTType = "HU"
    item.add_new(0x00283006, "OW", np.arange(4096, dtype=np.uint16).tobytes())
    dataset = ct_dataset(STORED, RescaleSlope=None, RescaleIntercept=None, ModalityLUTSequence=[item])
    item["LUTDescriptor"].VR = "US"
    grey = decode(written(dataset))[0]
    np.testing.assert_array_equal(grey, np.rint(np.clip((STORED + 600.0) / 1500 + 0.5, 0, 1) * 255))


def test_a_palette_of_greys_is_looked_up() -> None:
    ramp = (255 - np.arange(256, dtype=np.uint16)) * 257
    data = ct(GREY, PhotometricInterpretation="PALETTE COLOR", **palette(ramp, ramp, ramp))
    np.testing.assert_array_equal(decode(data)[0], 255 - GREY)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"RescaleSlope": None}, id="no slope"),
        pytest.param({"RescaleSlope": ""}, id="empty slope"),
        pytest.param({"RescaleIntercept": ["-1024", "-1024"]}, id="twice the same intercept"),
        pytest.param({"Modality": None}, id="no modality in a file of the CT class"),
        pytest.param({"Modality": ""}, id="empty modality in a file of the CT class"),
        pytest.param({"PhotometricInterpretation": None}, id="no photometric interpretation"),
        pytest.param({"NumberOfFrames": 0}, id="no frames"),
        *(pytest.param({"RescaleType": unit}, id=f"unit '{unit}'") for unit in ("HU", "HU_MOD", "US", "")),
        pytest.param({"PhotometricInterpretation": "MONOCHROME1"}, id="monochrome1 with a rescale"),
    ],
)
def test_an_element_that_says_nothing_new_may_be_missing(changes: dict[str, Any]) -> None:
    np.testing.assert_array_equal(decode(ct(STORED, **changes)), EXPECTED)


@pytest.mark.parametrize("tail", [b"\0" * 200_000, b"\xff" * 40, b"\0" * 512])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless])
def test_bytes_after_the_pixels_are_not_read(syntax: str, tail: bytes) -> None:
    np.testing.assert_array_equal(decode(ct(STORED, syntax) + tail), EXPECTED)


def test_compressed_pixels_without_their_delimiter_are_read_and_cut_ones_refused() -> None:
    data = ct(STORED, JPEG2000Lossless)
    np.testing.assert_array_equal(decode(data[:-8]), EXPECTED)
    for keep in range(len(data) // 2, len(data) - 20, 211):
        with pytest.raises(UnusableImageError, match="truncated"):
            decode(data[:keep])
