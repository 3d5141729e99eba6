"""Result of a study as a zip: study.json, and for each series pictures of its key slices and the result files."""

import io
import zipfile
from typing import Final

from service.api_study import StudyAnswer
from service.dicom_out.segmentation import Kind
from service.inference.served_model import ServedModel
from service.model.card import OperatingPoint
from service.model.study import Study
from service.study_results import key_pictures, series_results

_DATE: Final = (1980, 1, 1, 0, 0, 0)
"""Date of the files in a zip, so that the same result gives the same zip."""


def study_zip(
    study: Study, answer: StudyAnswer, model: ServedModel, point: OperatingPoint, kind: Kind = "binary"
) -> bytes:
    """Build the zip.

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
        for index, read in enumerate(study.series):
            found = read.assess(model.card, point)
            if found is None:
                continue
            results = series_results(read, found, model.card, model.predictor.sha256, kind)
            for name, data in (*key_pictures(read, found), *results.content.items()):
                _write(archive, f"series-{index}/{name}", data)
            if results.missing:
                _write(archive, f"series-{index}/missing.txt", "\n".join(results.missing).encode())
    return file.getvalue()


def _write(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _DATE), data, zipfile.ZIP_DEFLATED)
