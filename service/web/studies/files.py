"""Result of a study as a zip or as lines: the answer, pictures, and the result files of each series."""

import asyncio
import io
import itertools
import zipfile
from collections.abc import Iterator
from typing import Final

from service.api_study import ResultFile, SlicePicture, StudyAnswer
from service.dicom_out import Kind
from service.imaging.overlay import map_image, png
from service.inference.served_model import ServedModel
from service.model.card import OperatingPoint
from service.model.study import Study

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
    names = _written(file, answer, result_files_of(study, model, point, kind))
    while await asyncio.to_thread(next, names, None) is not None:
        pass
    return file.getvalue()


def slice_pictures(study: Study, answer: StudyAnswer) -> Iterator[SlicePicture]:
    """Yield the pictures of all slices that have a preview; of each series the key slices first."""
    for series, read in zip(answer.series, study.series, strict=True):
        others = [slice_.index for slice_ in series.slices if slice_.index not in series.key_slices]
        for index in (*series.key_slices, *others):
            slice_ = read.slices[index]
            if slice_.preview is None:
                continue
            prediction = slice_.prediction
            lungs = None if prediction is None else prediction.lungs
            yield SlicePicture(
                series=series.index,
                index=index,
                slice_jpeg=slice_.preview,
                lesion_png=None if prediction is None else png(map_image(prediction.heatmap)),
                lungs_png=None if lungs is None else png(map_image(lungs)),
            )


def result_files_of(study: Study, model: ServedModel, point: OperatingPoint, kind: Kind) -> Iterator[ResultFile]:
    """Yield the result files of each series that shows lungs; the first one takes an import of 0.3 s."""
    from service.study_results import study_files

    yield from study_files(study, model.card, point, model.predictor.sha256, kind)


def _written(file: io.BytesIO, answer: StudyAnswer, results: Iterator[ResultFile]) -> Iterator[str]:
    """Write the zip, and yield the name of each file when it is written."""
    first = ("study.json", answer.model_dump_json(indent=1).encode())
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in itertools.chain([first], ((result.path, result.content) for result in results)):
            archive.writestr(zipfile.ZipInfo(name, _DATE), data, zipfile.ZIP_DEFLATED)
            yield name
