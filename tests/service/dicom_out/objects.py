"""DICOM objects of the drawn chest, and how other programs read them."""

import io
import subprocess
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from highdicom.seg import Segmentation, segread
from pydicom.dataset import Dataset

from service.dicom_out.device import Device

DEVICE: Final = Device("covid-ct-vgg19_bn", "9.9.9", "ab" * 32, "1.2.3")


def written(dataset: Dataset) -> bytes:
    """The object as a file."""
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def read_segmentation(dataset: Dataset) -> Segmentation:
    """The SEG as highdicom reads it from a file."""
    return segread(io.BytesIO(written(dataset)))


def dciodvfy(dataset: Dataset, folder: Path) -> list[str]:
    """Errors and warnings of dciodvfy about the object."""
    path = folder / "object.dcm"
    path.write_bytes(written(dataset))
    try:
        done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("dciodvfy is missing; Debian has it in dicom3tools")
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith(("Error", "Warning"))]


def frame_values(result: Dataset) -> dict[tuple[int, str, int | None], np.ndarray]:
    """Stored frames by segment, instance of the source and number of its frame, unpacked by pydicom."""
    pixels = result.pixel_array.reshape(-1, result.Rows, result.Columns)
    frames = {}
    for frame, groups in zip(pixels, result.PerFrameFunctionalGroupsSequence, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        frames[segment, source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber")] = frame
    return frames
