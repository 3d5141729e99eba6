"""Answers of series for a PACS: by a service, or by the model in this process."""

import io
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from covid_ct.errors import ClientError, SourceError, UsageError
from covid_ct.http import Client
from covid_ct.model_folder import find_models
from covid_ct.pacs.worker import Results
from covid_ct.study import answer_slices, read_study
from service.api_study import StudyAnswer
from service.errors import ErrorCode, MalformedRequestError, ModelFileError, UnusableImageError

if TYPE_CHECKING:
    from service.model.predictor import Predictor

_STUDY_SECONDS: Final = 1800.0
"""Longest wait for the answer of a service: it comes as a whole."""


class ServiceAnswerer:
    """Asks a service for each series.

    Args:
        url: of the service.
        api_key: for it.
        operating_point: threshold for the label; None is that of the service.
    """

    def __init__(self, url: str, api_key: str | None = None, operating_point: str | None = None) -> None:
        self._client = Client(url, api_key=api_key, timeout=_STUDY_SECONDS)
        self._point = operating_point

    def model(self) -> tuple[str, str]:
        """Return name and version of the model that is served now."""
        card = self._client.model().card
        return card.name, card.version

    def results(self, files: Iterable[bytes]) -> Results:
        """Send the files as a zip, and read SEG and SR from the zip that comes back.

        Raises:
            ClientError: no answer, or an error of the service.
            UnusableImageError: no DICOM object can refer to the series.
        """
        with tempfile.TemporaryFile() as study:
            _write_zip(study, files)
            study.seek(0)
            return read_results(self._client.study_results(study, operating_point=self._point))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class LocalAnswerer:
    """Runs the model in this process.

    Args:
        models: folder of the model; None: as in `find_models`.
        device: auto, cpu or cuda.
        operating_point: threshold for the label; None is the card's.

    Raises:
        ClientError: no model, or one that can't be used.
        UsageError: the card has no such operating point.
    """

    def __init__(self, models: Path | None = None, device: str = "auto", operating_point: str | None = None) -> None:
        from service.model.loading import LoadOptions, load_predictor

        try:
            self._predictor: Predictor = load_predictor(LoadOptions(find_models(models), device=device))
        except ModelFileError as error:
            raise ClientError(str(error)) from error
        try:
            self._point = self._predictor.card.operating_point(operating_point)
        except MalformedRequestError as error:
            self.close()
            raise UsageError(error.detail) from error

    def model(self) -> tuple[str, str]:
        """Return name and version of the model."""
        return self._predictor.card.name, self._predictor.card.version

    def results(self, files: Iterable[bytes]) -> Results:
        """Answer the files of a series.

        Raises:
            UnusableImageError: no file has a slice, no slice has lungs, or no DICOM object can refer to the series.
        """
        from service.study_results import series_results

        card, results = self._predictor.card, []
        with tempfile.TemporaryDirectory() as folder:
            try:
                study = read_study(_write_files(Path(folder), files), self._predictor, keep_sources=True)
            except SourceError as error:
                raise UnusableImageError(error.detail, code=ErrorCode.NO_SLICES) from error
        answer_slices(study, self._predictor)
        for read in study.series:
            found = read.assess(card, self._point)
            if found is not None:
                results.append(series_results(read, found, card, self._predictor.sha256))
        if not results:
            raise UnusableImageError("No slice of the series shows lungs.", code=ErrorCode.NO_LUNGS)
        dicom = [data for each in results for name, data in each.content.items() if name.endswith(".dcm")]
        return _results(dicom, StudyAnswer.of(study, card, self._point))

    def close(self) -> None:
        """Release the model."""
        self._predictor.close()


def read_results(data: bytes) -> Results:
    """Read the DICOM objects in the zip of a study's answer.

    Raises:
        UnusableImageError: it has none.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = [archive.read(name) for name in archive.namelist() if name.endswith(".dcm")]
        return _results(files, StudyAnswer.model_validate_json(archive.read("study.json")))


def _results(files: list[bytes], answer: StudyAnswer) -> Results:
    if not files:
        raise UnusableImageError("No DICOM results can refer to the series: its headers lack identifiers.")
    return Results(files, "; ".join(_summaries(answer)))


def _write_files(folder: Path, files: Iterable[bytes]) -> Iterator[Path]:
    """Write each file when it is asked for, and delete it when the next one is."""
    for index, file in enumerate(files):
        path = folder / f"{index:06d}.dcm"
        path.write_bytes(file)
        yield path
        path.unlink()


def _write_zip(target: IO[bytes], files: Iterable[bytes]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for index, file in enumerate(files):
            archive.writestr(f"{index:05d}.dcm", file)


def _summaries(answer: StudyAnswer) -> Iterator[str]:
    for series in answer.series:
        if series.probability is not None:
            yield f"{series.label} {series.probability:.2f}, {series.severity or 'severity unknown'}"
