import io
import struct

import pydicom
import pytest

from service.imaging.dicom.file import open_dicom
from service.imaging.dicom.reader import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT
from tests.support.files.dicoms import PATIENT, ct, ct_dataset, phantom, written

STORED = phantom()


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN])
def test_the_header_of_a_series_has_its_elements_without_those_of_frames_and_makers(syntax: str) -> None:
    code = pydicom.Dataset()
    code.CodeValue, code.CodeMeaning = "1", "Größe"
    changes = {"SpecificCharacterSet": "ISO_IR 192", "ProcedureCodeSequence": [code], "StudyDescription": "Brust Größe"}
    dataset = ct_dataset(STORED, syntax, **changes)
    dataset.add_new(0x00091001, "LO", "private")
    dataset.SharedFunctionalGroupsSequence = [code]
    read = pydicom.dcmread(io.BytesIO(open_dicom(written(dataset)).reader.series_header()))
    assert (read.StudyDescription, read.ProcedureCodeSequence[0].CodeMeaning) == ("Brust Größe", "Größe")
    assert (read.Rows, read.PatientName) == (64, PATIENT)
    assert "PixelData" not in read
    assert "SharedFunctionalGroupsSequence" not in read
    assert 0x00091001 not in read


def test_the_header_of_a_series_is_small_whatever_its_file_has() -> None:
    long = ct(STORED, DEFLATED, LongCodeValue="x" * 10_000_000, PatientComments="y" * 10_000)
    header = open_dicom(long).reader.series_header()
    assert len(header) < 256 * 1024
    assert pydicom.dcmread(io.BytesIO(header)).PatientComments == "y" * 10_000
    unknown = b"".join(struct.pack("<HH2sH", 0x22, tag, b"CS", 0) for tag in range(0x8000, 0xF000))
    file = ct(STORED)
    at = file.index(b"\x28\0\x02\0US")
    assert len(open_dicom(file[:at] + unknown + file[at:]).reader.series_header()) < 2000
