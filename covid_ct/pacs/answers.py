"""Results of series for a PACS: by a service, or by the model in this process."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from covid_ct.engines import LocalEngine, StudyRequest
from covid_ct.files.sources import study_sources
from covid_ct.http import Client, StudyResults
from covid_ct.models import find_models
from covid_ct.pacs.worker import Results
from service.api_study import StudyAnswer
from service.errors import UnusableImageError


class ServiceAnswerer:
    """Asks a service for each series.

    Args:
        url: of the service.
        api_key: for it.
        operating_point: threshold for the label; None is that of the service.
    """

    def __init__(self, url: str, api_key: str | None = None, operating_point: str | None = None) -> None:
        self._client = Client(url, api_key=api_key)
        self._point = operating_point

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def model(self) -> tuple[str, str]:
        """Return name and version of the model that is served now."""
        card = self._client.model().card
        return card.name, card.version

    def results(self, files: Iterable[bytes]) -> Results:
        """Send the files of a series, and return the SEG and SR.

        Raises:
            ClientError: no answer, or an error of the service.
            UnusableImageError: no DICOM object can refer to the series.
        """
        with _stored(files) as folder:
            return dicom_results(self._client.study_results(folder, operating_point=self._point))


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
        self._engine = LocalEngine(find_models(models), device, operating_point=operating_point)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._engine.close()

    def model(self) -> tuple[str, str]:
        """Return name and version of the model."""
        return self._engine.card.name, self._engine.card.version

    def results(self, files: Iterable[bytes]) -> Results:
        """Predict for the files of a series, and return the SEG and SR.

        Raises:
            UnusableImageError: no file has a slice, no slice has lungs, or no DICOM object can refer to the series.
        """
        with _stored(files) as folder:
            return dicom_results(self._engine.predict_study(StudyRequest(study_sources(folder), with_files=True)))


def dicom_results(results: StudyResults) -> Results:
    """Choose the DICOM objects of a study's results.

    Raises:
        UnusableImageError: there are none.
    """
    files = [data for name, data in results.files.items() if name.endswith(".dcm")]
    if not files:
        raise UnusableImageError("No DICOM results can refer to the series: its headers lack identifiers.")
    return Results(files, "; ".join(_summaries(results.answer)))


@contextmanager
def _stored(files: Iterable[bytes]) -> Iterator[Path]:
    """Write the files of a series into a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index, file in enumerate(files):
            (folder / f"{index:06d}.dcm").write_bytes(file)
        yield folder


def _summaries(answer: StudyAnswer) -> Iterator[str]:
    for series in answer.series:
        if series.probability is not None:
            yield f"{series.label} {series.probability:.2f}, {series.severity or 'severity unknown'}"
