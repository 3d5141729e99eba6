"""Results of series for a PACS: from a service, or from the model in this process."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from covid_ct.engines import LocalEngine, StudyRequest
from covid_ct.files.sources import study_sources
from covid_ct.http import Client, StudyResults
from covid_ct.models import find_models
from service.api_study import StudyAnswer
from service.errors import UnusableImageError


@dataclass(frozen=True, slots=True)
class Results:
    """Results of a series.

    Attributes:
        files: DICOM objects.
        summary: label, probability and severity in a few words.
    """

    files: list[bytes]
    summary: str


@dataclass(frozen=True, slots=True)
class SeriesPredictor:
    """Predicts for one series at a time.

    Attributes:
        model: returns name and version of the model; raises `UnreachableError` if the service is away.
        study_results: predicts for the files of a folder.
    """

    model: Callable[[], tuple[str, str]]
    study_results: Callable[[Path], StudyResults]

    def results(self, files: Iterable[bytes]) -> Results:
        """Predict for the files of a series, and return the SEG and SR.

        Raises:
            ClientError: no response, or an error of the service.
            UnusableImageError: no file has a slice, no slice has lungs, or no DICOM object can refer to the series.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for index, file in enumerate(files):
                (folder / f"{index:06d}.dcm").write_bytes(file)
            return dicom_results(self.study_results(folder))


@contextmanager
def remote_predictor(
    url: str, api_key: str | None = None, operating_point: str | None = None
) -> Iterator[SeriesPredictor]:
    """Open a service.

    Args:
        url: of the service.
        api_key: for it.
        operating_point: threshold for the label; None is that of the service.
    """
    with Client(url, api_key=api_key) as client:

        def model() -> tuple[str, str]:
            card = client.model().card
            return card.name, card.version

        yield SeriesPredictor(model, partial(client.study_results, operating_point=operating_point))


@contextmanager
def local_predictor(
    models: Path | None = None, device: str = "auto", operating_point: str | None = None
) -> Iterator[SeriesPredictor]:
    """Load the model into this process.

    Args:
        models: folder of the model; None: as in `find_models`.
        device: auto, cpu or cuda.
        operating_point: threshold for the label; None is the card's.

    Raises:
        ClientError: no model, or one that can't be used.
        UsageError: the card has no such operating point.
    """
    with LocalEngine(find_models(models), device, operating_point=operating_point) as engine:
        model = engine.card.name, engine.card.version
        yield SeriesPredictor(
            lambda: model, lambda folder: engine.predict_study(StudyRequest(study_sources(folder), with_files=True))
        )


def dicom_results(results: StudyResults) -> Results:
    """Choose the DICOM objects of a study's results.

    Raises:
        UnusableImageError: there are none.
    """
    files = [data for name, data in results.files.items() if name.endswith(".dcm")]
    if not files:
        raise UnusableImageError("No DICOM results can refer to the series: its headers lack identifiers.")
    return Results(files, "; ".join(_summaries(results.answer)))


def _summaries(answer: StudyAnswer) -> Iterator[str]:
    for series in answer.series:
        if series.probability is not None:
            yield f"{series.label} {series.probability:.2f}, {series.severity or 'severity unknown'}"
