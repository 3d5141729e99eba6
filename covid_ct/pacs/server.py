"""A PACS through DICOMweb (PS3.18): which chest CT series and which reports it holds, their files, and results back."""

import io
import logging
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from covid_ct.errors import ClientError, UsageError
from covid_ct.http import is_loopback, unusable_environment
from service.dicom_out.device import MANUFACTURER

if TYPE_CHECKING:
    from dicomweb_client.web import DICOMwebClient
    from requests import Session

_PAGE: Final = 500
"""Series for which one request asks."""

_TIMEOUT: Final = (10.0, 300.0)
"""Seconds for connecting, and for each wait for data."""

_AWAY: Final = frozenset((429, 502, 503, 504))
"""HTTP status of a server that is there again later."""

_CERTIFICATES: Final = "REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE"
"""Variables of the environment that name certificates for requests."""

_CHEST: Final = ("CHEST", "THORA", "LUNG", "BODY", "TRUNK", "TORSO")
"""Parts of BodyPartExamined (0018,0015) of series that may show lungs; many have none, and are read too."""

_ANY_SYNTAX: Final = (("application/dicom", "*"),)
"""Files as they are stored: the server converts nothing, and the decoder here reads more than most servers."""


class PacsError(ClientError):
    """The PACS refused a request."""


class PacsAwayError(ClientError):
    """The PACS can't be reached now."""


@dataclass(frozen=True, slots=True)
class CtSeries:
    """A chest CT series of the PACS.

    Attributes:
        study_uid, series_uid: its identifiers.
        instances: how many the server holds; None if it does not say.
        time: date and time of the study, for sorting.
    """

    study_uid: str
    series_uid: str
    instances: int | None
    time: str


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A report of this software in the PACS.

    Attributes:
        model: name of the model that made it.
        versions: its software versions, as in `Device.software_versions`.
        series_uids: series that it refers to.
    """

    model: str
    versions: tuple[str, ...]
    series_uids: frozenset[str]


class Pacs:
    """A DICOMweb server.

    Args:
        url: of its DICOMweb services.
        authorization: value of the header Authorization; None sends none.

    Every method raises `PacsAwayError` if the server can't be reached now, and `PacsError` if it refuses.
    """

    def __init__(self, url: str, authorization: str | None = None) -> None:
        self._session = _session()
        self._client = _client(url, authorization, self._session)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    def chest_series(self) -> list[CtSeries]:
        """Find CT series that may show a chest, the latest study first."""
        by_uid: dict[str, CtSeries] = {}
        fields = ["BodyPartExamined", "NumberOfSeriesRelatedInstances", "StudyDate", "StudyTime"]
        offset = 0
        while True:
            with _translate_errors(away=range(500, 600)):
                page = self._client.search_for_series(
                    search_filters={"Modality": "CT"}, fields=fields, limit=_PAGE, offset=offset
                )
            new = {series.series_uid: series for series in map(_series, page) if series is not None}
            if not new.keys() - by_uid.keys():  # the end, or a server that ignores the offset
                return sorted(by_uid.values(), key=lambda series: series.time, reverse=True)
            by_uid |= new
            offset += len(page)

    def reports(self, study_uid: str) -> list[StoredReport]:
        """Read which reports of this software a study holds."""
        with _translate_errors():
            series = self._client.search_for_series(
                study_instance_uid=study_uid,
                search_filters={"Modality": "SR"},
                fields=["SeriesDescription"],
            )
        reports: list[StoredReport] = []
        for report in series:
            description = _value(report, "0008103E")
            if description is None or str(description).startswith(MANUFACTURER):
                reports += self._reports_of_series(study_uid, str(_value(report, "0020000E")))
        return reports

    def files(self, series: CtSeries) -> Iterator[bytes]:
        """Yield the files of a series, as they are stored.

        Raises:
            PacsError: also if there are fewer than the server said.
        """
        count = 0
        with _translate_errors():
            for dataset in self._client.iter_series(series.study_uid, series.series_uid, media_types=_ANY_SYNTAX):
                file = io.BytesIO()
                dataset.save_as(file, enforce_file_format=True)
                count += 1
                yield file.getvalue()
        if series.instances is not None and count < series.instances:
            raise PacsError(f"the PACS sent {count} of {series.instances} instances")

    def store(self, files: Iterable[bytes]) -> None:
        """Store DICOM files; those that the server holds already stay."""
        from pydicom import dcmread

        with _translate_errors():
            answer = self._client.store_instances([dcmread(io.BytesIO(file)) for file in files])
        failed = answer.get("FailedSOPSequence") or []
        if failed:
            reasons = ", ".join(f"{item.get('FailureReason', 0):04X}H" for item in failed)
            raise PacsError(f"the PACS did not store {len(failed)} of the results (failure reason {reasons})")

    def _reports_of_series(self, study_uid: str, series_uid: str) -> Iterator[StoredReport]:
        with _translate_errors():
            instances = self._client.retrieve_series_metadata(study_uid, series_uid)
        for instance in instances:
            if _value(instance, "00080070") == MANUFACTURER:
                yield StoredReport(
                    str(_value(instance, "00081090")),
                    tuple(map(str, _values(instance, "00181020"))),
                    frozenset(
                        str(_value(series, "0020000E"))
                        for study in _values(instance, "0040A375")
                        for series in _values(study, "00081115")
                    ),
                )


def _session() -> "Session":
    try:
        import dicomweb_client  # noqa: F401 - asked before anything is sent
        from requests import Session
    except ImportError:
        raise ClientError("a PACS needs dicomweb-client: in a clone, pip install '.[pacs]'") from None
    return Session()


def _client(url: str, authorization: str | None, session: "Session") -> "DICOMwebClient":
    from dicomweb_client.web import DICOMwebClient

    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UsageError(f"{url!r} is not a DICOMweb address; write it like http://127.0.0.1:8042/dicom-web")
    if address.username:
        raise UsageError("leave name and password out of the address, and set COVIDCT_PACS_AUTHORIZATION")
    session.trust_env = not is_loopback(address.hostname)
    logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL + 1)  # its lines have identifiers
    headers = {} if authorization is None else {"Authorization": authorization}
    client = DICOMwebClient(url.rstrip("/"), session, headers=headers, permissive_uid=True, timeout=_TIMEOUT)
    client.set_http_retry_params(retry=False)  # the worker tries again, with growing pauses
    return client


@contextmanager
def _translate_errors(away: Container[int] = _AWAY) -> Iterator[None]:
    """Raise the errors of `Pacs`; `away` has the HTTP status of a server that is there again later."""
    from pydicom.errors import InvalidDicomError
    from requests import HTTPError, RequestException
    from requests.exceptions import InvalidSchema, InvalidURL

    try:
        yield
    except HTTPError as error:
        status = 0 if error.response is None else error.response.status_code
        if status in away or status in _AWAY:
            raise PacsAwayError(f"the PACS responded with status {status}") from None
        raise PacsError(f"the PACS responded with status {status}") from None
    except (InvalidSchema, InvalidURL) as error:  # of a proxy: the address of the PACS is checked before
        raise unusable_environment(_CERTIFICATES, type(error).__name__) from None
    except RequestException as error:  # the message would have the address, and so identifiers
        raise PacsAwayError(f"no response from the PACS ({type(error).__name__})") from None
    except OSError as error:
        raise unusable_environment(_CERTIFICATES, error) from None
    except (InvalidDicomError, ValueError, KeyError) as error:
        raise PacsError(f"the response of the PACS is not DICOMweb ({type(error).__name__})") from None


def _series(dataset: Mapping[str, Any]) -> CtSeries | None:
    """Read a series of a search; None if it shows no chest."""
    part = str(_value(dataset, "00180015") or "").upper()
    if part and not any(word in part for word in _CHEST):
        return None
    count = _value(dataset, "00201209")
    time = "".join(str(_value(dataset, tag) or "") for tag in ("00080020", "00080030"))
    return CtSeries(
        str(_value(dataset, "0020000D")), str(_value(dataset, "0020000E")), None if count is None else int(count), time
    )


def _values(dataset: Mapping[str, Any], tag: str) -> list[Any]:
    """Return the values of an element of the DICOM JSON model (PS3.18 F.2)."""
    return list(dataset.get(tag, {}).get("Value", []))


def _value(dataset: Mapping[str, Any], tag: str) -> Any:
    return next(iter(_values(dataset, tag)), None)
