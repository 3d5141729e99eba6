"""Draw a study that looks like a chest CT, to try the service without a scan of a patient.

Its slices are those of `draw_slice` at levels from the abdomen to the neck, with patches that look like ground-glass
opacities in the lower half. It is one enhanced multi-frame DICOM file, compressed by JPEG 2000.

    python -m examples.draw_study service/web/page/sample-study.dcm
"""

import argparse
import io
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, UID, EnhancedCTImageStorage, generate_uid

from examples.draw_slice import WINDOW, draw_slice

SLICES: Final = 26
SPACING: Final = 10.0
"""Millimetres between slices."""

SIDE: Final = 384
FIELD_OF_VIEW: Final = 380.0
"""Pixels and millimetres of a side."""

_COMPRESSION: Final = 16
"""Of JPEG 2000: the noise of a slice is lost, its vessels stay."""


def draw_volume(seed: int, count: int = SLICES, side: int = SIDE) -> NDArray[np.uint8]:
    """Draw slices from the feet to the head, in a lung window: uint8 (count, side, side)."""
    levels = np.linspace(-1.1, 1.0, count)
    return np.stack([draw_slice(seed, side, side, disease=-0.75 < level < 0.3, level=level) for level in levels])


def write_study(volume: NDArray[np.uint8], path: Path) -> None:
    """Write a volume as a DICOM file, with a patient whose name says that it is drawn."""
    dataset = _described(len(volume))
    dataset.Rows, dataset.Columns = volume.shape[1:]
    dataset.PixelData = encapsulate([_compressed(slice_) for slice_ in volume])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)


def _described(frames: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEG2000
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = EnhancedCTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = _uid("instance")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid("study"), _uid("series")
    dataset.FrameOfReferenceUID = _uid("frame of reference")
    dataset.PatientName, dataset.PatientID = "Drawn^Study", "DRAWN"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyID = dataset.AccessionNumber = ""
    dataset.StudyDate = dataset.StudyTime = dataset.ReferringPhysicianName = ""
    dataset.Modality, dataset.Manufacturer = "CT", "covid-ct examples"
    dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.SeriesDescription = "Drawn, not a patient"
    dataset.NumberOfFrames = frames
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.LossyImageCompression = "01"
    dataset.SharedFunctionalGroupsSequence = [_shared()]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(index) for index in range(frames)]
    return dataset


def _shared() -> Dataset:
    low, high = WINDOW
    groups = Dataset()
    groups.PixelMeasuresSequence = [measures := Dataset()]
    measures.PixelSpacing = [FIELD_OF_VIEW / SIDE, FIELD_OF_VIEW / SIDE]
    measures.SliceThickness = SPACING
    groups.PlaneOrientationSequence = [orientation := Dataset()]
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    groups.PixelValueTransformationSequence = [hounsfield := Dataset()]
    hounsfield.RescaleIntercept, hounsfield.RescaleSlope = low, round((high - low) / 255, 6)
    hounsfield.RescaleType = "HU"
    return groups


def _frame(index: int) -> Dataset:
    groups = Dataset()
    groups.PlanePositionSequence = [position := Dataset()]
    corner = -(FIELD_OF_VIEW - FIELD_OF_VIEW / SIDE) / 2
    position.ImagePositionPatient = [corner, corner, index * SPACING]
    groups.FrameContentSequence = [content := Dataset()]
    content.DimensionIndexValues = [index + 1]
    return groups


def _uid(name: str) -> UID:
    return generate_uid(entropy_srcs=["covid-ct drawn study", name])


def _compressed(slice_: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    options = {"no_jp2": True, "irreversible": True, "quality_mode": "rates", "quality_layers": [_COMPRESSION]}
    Image.fromarray(slice_).save(file, "JPEG2000", **options)
    return file.getvalue() + b"\0" * (file.tell() % 2)


def main() -> None:
    """Write one study as a DICOM file."""
    parser = argparse.ArgumentParser(description="Draw a generated study that looks like a chest CT.")
    parser.add_argument("path", type=Path, help="DICOM file to write")
    parser.add_argument("--seed", type=int, default=0, help="which body (0)")
    options = parser.parse_args()
    write_study(draw_volume(options.seed), options.path)


if __name__ == "__main__":
    main()
