"""Answers of series for a PACS: by a service, or by the model in this process."""

import io
import json
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from typing import IO, Final

from covid_ct.http import Client
from covid_ct.pacs.worker import Results
from service.errors import UnusableImageError

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


def read_results(data: bytes) -> Results:
    """Read the DICOM objects in the zip of a study's answer.

    Raises:
        UnusableImageError: it has none.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = [archive.read(name) for name in archive.namelist() if name.endswith(".dcm")]
        answer = json.loads(archive.read("study.json"))
    if not files:
        raise UnusableImageError("No DICOM results can refer to the series: its headers lack identifiers.")
    return Results(files, "; ".join(_summaries(answer)))


def _write_zip(target: IO[bytes], files: Iterable[bytes]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for index, file in enumerate(files):
            archive.writestr(f"{index:05d}.dcm", file)


def _summaries(answer: dict[str, list[dict[str, object]]]) -> Iterator[str]:
    for series in answer["series"]:
        if series["probability"] is not None:
            yield f"{series['label']} {series['probability']:.2f}, {series['severity'] or 'severity unknown'}"
