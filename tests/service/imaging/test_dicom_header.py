import io
import struct

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from service.errors import UnusableImageError
from service.imaging.decode import decode
from service.imaging.dicom import open_dicom
from service.imaging.dicom_header import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT
from tests.support.files.dicoms import PATIENT, ct, ct_dataset, phantom, written

STORED = phantom()


@pytest.mark.parametrize("syntax", [EXPLICIT, RLELossless, JPEGLSLossless])
def test_more_frames_than_announced_are_a_named_contradiction(syntax: str) -> None:
    with pytest.raises(UnusableImageError, match=r"NumberOfFrames \(0028,0008\) announces 2, .* 3 frames") as caught:
        decode(ct(np.stack([STORED] * 3), syntax, NumberOfFrames=2))
    assert caught.value.code == "damaged_image"


@pytest.mark.parametrize("size", [(63, 64), (64, 63), (40, 64), (64, 40)])
@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_more_pixels_than_rows_and_columns_announce_are_another_size(syntax: str, size: tuple[int, int]) -> None:
    with pytest.raises(UnusableImageError, match=r"Rows or Columns is wrong|of another size than its header") as caught:
        decode(ct(STORED, syntax, Rows=size[0], Columns=size[1]))
    assert caught.value.code == "damaged_image"


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN])
def test_the_header_of_a_series_has_its_elements_without_those_of_frames_and_makers(syntax: str) -> None:
    code = pydicom.Dataset()
    code.CodeValue, code.CodeMeaning = "1", "Größe"
    changes = {"SpecificCharacterSet": "ISO_IR 192", "ProcedureCodeSequence": [code], "StudyDescription": "Brust Größe"}
    dataset = ct_dataset(STORED, syntax, **changes)
    dataset.add_new(0x00091001, "LO", "private")
    dataset.SharedFunctionalGroupsSequence = [code]
    read = pydicom.dcmread(io.BytesIO(open_dicom(written(dataset)).series_header()))
    assert (read.StudyDescription, read.ProcedureCodeSequence[0].CodeMeaning) == ("Brust Größe", "Größe")
    assert (read.Rows, read.PatientName) == (64, PATIENT)
    assert "PixelData" not in read
    assert "SharedFunctionalGroupsSequence" not in read
    assert 0x00091001 not in read


def test_the_header_of_a_series_is_small_whatever_its_file_has() -> None:
    long = ct(STORED, DEFLATED, LongCodeValue="x" * 10_000_000, PatientComments="y" * 10_000)
    header = open_dicom(long).series_header()
    assert len(header) < 256 * 1024
    assert pydicom.dcmread(io.BytesIO(header)).PatientComments == "y" * 10_000
    unknown = b"".join(struct.pack("<HH2sH", 0x22, tag, b"CS", 0) for tag in range(0x8000, 0xF000))
    file = ct(STORED)
    at = file.index(b"\x28\0\x02\0US")
    assert len(open_dicom(file[:at] + unknown + file[at:]).series_header()) < 2000
