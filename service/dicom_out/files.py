"""Result files of a series: SEG and SR, or NIfTI masks where the source has no DICOM headers."""

import io
from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset

from service.dicom_out import MISSING, Kind
from service.dicom_out.device import Device
from service.dicom_out.masks import SeriesMaps
from service.dicom_out.nifti import nifti_masks
from service.dicom_out.report import Findings, report
from service.dicom_out.segmentation import segmentation
from service.dicom_out.source import SourceHeaderError, read_source
from service.imaging.series.geometry import SourceFrame

SEGMENTATION: Final = "segmentation.dcm"
REPORT: Final = "report.dcm"


def result_files(
    frames: Sequence[SourceFrame],
    maps: SeriesMaps | None,
    findings: Findings,
    device: Device,
    kind: Kind = "binary",
) -> dict[str, bytes]:
    """Write the results of a series, by name.

    Args:
        frames: DICOM frame of each slice; empty for slices that came without DICOM headers.
        maps: None if the positions of the slices are not known, or the model does not find lungs.
        findings: the answer.
        device: the model.
        kind: of the SEG.

    Returns:
        SEG and SR; without a SEG, the masks as NIfTI; and `MISSING`.
    """
    files: dict[str, bytes] = {}
    missing = [] if maps is not None else ["No masks: the positions of the slices or their lungs are not known."]
    source, seg = None, None
    try:
        source = read_source(frames)
        seg = None if maps is None else segmentation(source, maps, device, kind)
    except SourceHeaderError as error:
        missing.append(f"No {'SEG' if source else 'DICOM results'}: {error}.")
    if seg is not None:
        files[SEGMENTATION] = _written(seg)
    elif maps is not None:
        files |= nifti_masks(maps)
    try:
        if source is not None:
            files[REPORT] = _written(report(source, findings, device, seg))
    except SourceHeaderError as error:
        missing.append(f"No report: {error}.")
    if missing:
        files[MISSING] = "\n".join(missing).encode()
    return files


def _written(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
