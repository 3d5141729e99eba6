"""Result of a study as a zip or as lines: the answer, pictures, and the result files of each series."""

import asyncio
import io
import zipfile
from collections.abc import Iterator
from typing import Final

from service.api_study import SlicePicture, StudyAnswer
from service.dicom_out.segmentation import Kind
from service.imaging.overlay import map_image, png
from service.inference.served_model import ServedModel
from service.model.card import OperatingPoint
from service.model.study import Study
from service.study_results import study_files

_DATE: Final = (1980, 1, 1, 0, 0, 0)
"""Date of the files in a zip, so that the same result gives the same zip."""


async def study_zip(
    study: Study, answer: StudyAnswer, model: ServedModel, point: OperatingPoint, kind: Kind = "binary"
) -> bytes:
    """Build the zip in a thread, a file at a time, so that it can be cancelled in between.

    Args:
        study: read, with pictures and headers of its slices.
        answer: for study.json.
        model: that read it.
        point: for the labels.
        kind: of the SEG.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        _write(archive, "study.json", answer.model_dump_json(indent=1).encode())
        files = study_files(study, model.card, point, model.predictor.sha256, kind)
        while (result := await asyncio.to_thread(next, files, None)) is not None:
            await asyncio.to_thread(_write, archive, result.path, result.content)
    return file.getvalue()


def slice_pictures(study: Study, answer: StudyAnswer) -> Iterator[SlicePicture]:
    """Yield the pictures of all slices that have a preview; of each series the key slices first."""
    for series, read in zip(answer.series, study.series, strict=True):
        others = [slice_.index for slice_ in series.slices if slice_.index not in series.key_slices]
        for index in (*series.key_slices, *others):
            slice_ = read.slices[index]
            if slice_.file_slice.preview is None:
                continue
            prediction = slice_.prediction
            lungs = None if prediction is None else prediction.lungs
            yield SlicePicture(
                series=series.index,
                index=index,
                slice_jpeg=slice_.file_slice.preview,
                lesion_png=None if prediction is None else png(map_image(prediction.heatmap)),
                lungs_png=None if lungs is None else png(map_image(lungs)),
            )


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _DATE), data, zipfile.ZIP_DEFLATED)
