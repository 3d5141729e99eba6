import io

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    EncapsulatedPDFStorage,
    JPEG2000Lossless,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from service.errors import UnusableImageError
from service.imaging.decode import DecodeLimits, decode
from service.imaging.dicom_header import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, before_pixels
from tests.support.files.dicoms import compressed_dataset, ct, ct_dataset, phantom, written

STORED = phantom()


def pdf() -> bytes:
    dataset = ct_dataset(STORED, PixelData=None, SOPClassUID=EncapsulatedPDFStorage, Modality="DOC")
    dataset.EncapsulatedDocument = b"%PDF-1.7"
    return written(dataset)


def dicomdir() -> bytes:
    """A list of files: valid, and without any element that an image has."""
    dataset = Dataset()
    dataset.file_meta = ct_dataset(STORED).file_meta
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.FileSetID = "ARCHIVE"
    return written(dataset)


def lying_stream(syntax: str) -> bytes:
    """Compressed pixels of another size than the header says."""
    dataset = compressed_dataset(STORED, syntax)
    dataset.Rows = 32
    return written(dataset)


@pytest.mark.parametrize(
    ("data", "code", "telling"),
    [
        pytest.param(ct(STORED, Modality="MR"), "not_ct", "modality MR", id="mr"),
        pytest.param(
            ct(STORED, Modality=None, SOPClassUID=SecondaryCaptureImageStorage),
            "not_ct",
            "no known modality",
            id="no modality",
        ),
        pytest.param(pdf(), "no_pixel_data", "document", id="pdf"),
        pytest.param(dicomdir(), "no_pixel_data", "DICOMDIR", id="dicomdir"),
        pytest.param(
            dicomdir().replace(b"1.2.840.10008.1.3.10", b"1.2.840.10008.1.3.99"), "not_ct", "modality", id="no image"
        ),
        pytest.param(ct(STORED, PixelData=None), "no_pixel_data", "no pixel data", id="no pixels"),
        pytest.param(ct(STORED)[:-100], "damaged_image", "truncated", id="truncated"),
        pytest.param(ct(STORED)[:140], "damaged_image", "truncated", id="hardly begun"),
        pytest.param(ct(STORED, Rows=None), "damaged_image", "Rows (0028,0010)", id="no rows"),
        pytest.param(ct(STORED, RescaleSlope=0), "damaged_image", "rescale", id="slope 0"),
        pytest.param(ct(STORED, Rows=60_000, Columns=60_000), "damaged_image", "truncated", id="a size that is a lie"),
        pytest.param(ct(np.zeros((8, 400), np.uint16)), "image_too_small", "400 x 8", id="a sliver"),
        pytest.param(ct(np.zeros((200, 200), np.uint16)), "too_many_pixels", "200 x 200", id="too many pixels"),
        pytest.param(ct(STORED, BitsAllocated=32, BitsStored=32), "unsupported_sample_depth", "32 bits", id="32 bits"),
        pytest.param(
            ct(np.zeros((64, 64), np.uint8), PhotometricInterpretation="PALETTE COLOR"),
            "damaged_image",
            "(0028,1101)",
            id="palette without a palette",
        ),
        pytest.param(
            ct(STORED).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.7\0"),
            "unsupported_transfer_syntax",
            "1.2.840.10008.1.2.7",
            id="unknown transfer syntax",
        ),
        pytest.param(lying_stream(JPEG2000Lossless), "damaged_image", "another size", id="jpeg 2000 of another size"),
        pytest.param(lying_stream(JPEGLSLossless), "damaged_image", "another size", id="jpeg-ls of another size"),
    ],
)
def test_a_dicom_file_that_gives_no_slice_is_refused_with_the_reason(data: bytes, code: str, telling: str) -> None:
    with pytest.raises(UnusableImageError) as caught:
        decode(data, DecodeLimits(max_pixels=10_000))
    assert caught.value.code == code
    assert telling in caught.value.detail


@pytest.mark.parametrize("frames", [0, "0"])
def test_no_frames_announced_is_one_frame(frames: int | str) -> None:
    np.testing.assert_array_equal(decode(ct(STORED, NumberOfFrames=frames)), decode(ct(STORED)))


def test_explicit_elements_under_the_implicit_syntax_are_read() -> None:
    explicit = ct(STORED)
    data = explicit.replace(EXPLICIT.encode() + b"\0", IMPLICIT.encode().ljust(20, b"\0"))
    assert data != explicit
    np.testing.assert_array_equal(decode(data), decode(explicit))


@pytest.mark.parametrize("syntax", [EXPLICIT, RLELossless, JPEGLSLossless])
def test_more_frames_than_announced_are_a_named_contradiction(syntax: str) -> None:
    dataset = ct_dataset(np.stack([STORED] * 3))
    if syntax != EXPLICIT:
        dataset.compress(syntax, np.stack([STORED] * 3), generate_instance_uid=False)
    dataset.NumberOfFrames = 2
    with pytest.raises(UnusableImageError, match=r"NumberOfFrames \(0028,0008\) announces 2, .* 3 frames") as caught:
        decode(written(dataset))
    assert caught.value.code == "damaged_image"


@pytest.mark.parametrize("size", [(63, 64), (64, 63), (40, 64), (64, 40)])
@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED, RLELossless, JPEGLSLossless])
def test_more_pixels_than_rows_and_columns_announce_are_another_size(syntax: str, size: tuple[int, int]) -> None:
    dataset = ct_dataset(STORED, syntax)
    if syntax in (RLELossless, JPEGLSLossless):
        dataset = compressed_dataset(STORED, syntax)
    dataset.Rows, dataset.Columns = size
    with pytest.raises(UnusableImageError, match=r"Rows or Columns is wrong|of another size than its header") as caught:
        decode(written(dataset))
    assert caught.value.code == "damaged_image"


def test_fewer_bytes_than_a_row_behind_the_pixels_are_padding() -> None:
    padded = ct(STORED, PixelData=STORED.tobytes() + bytes(2 * 64 - 2))
    np.testing.assert_array_equal(decode(padded), decode(ct(STORED)))


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN])
def test_a_file_cut_before_its_pixels_keeps_every_other_element(syntax: str) -> None:
    dataset = ct_dataset(phantom(), syntax, StudyDescription="chest")
    cut = before_pixels(written(dataset))
    read = pydicom.dcmread(io.BytesIO(cut))
    assert read.StudyDescription == "chest"
    assert "PixelData" not in read
    assert read.file_meta.TransferSyntaxUID == syntax
