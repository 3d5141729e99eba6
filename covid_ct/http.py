"""A typed client of the service's API."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from math import isnan
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from covid_ct.errors import AnswerError, ClientError, ProblemError, SourceError, UnreachableError, UsageError
from covid_ct.files.images import ImageLike, file_bytes
from covid_ct.files.sources import PathLike, open_source, study_sources
from service import __version__
from service.api import Explanation, ModelInfo, Prediction, Problem
from service.api_study import StudyAnswer, StudyLine, StudyProgress
from service.imaging.series.files import natural_order
from service.imaging.window import Window

if TYPE_CHECKING:
    import httpx2

Answer = TypeVar("Answer", bound=BaseModel)
T = TypeVar("T")

LOCAL: Final = "http://127.0.0.1:8000"

MAX_ANSWER_BYTES: Final = 256 * 1024**2
"""An explanation of a slice of 4096 x 4096 has about 60 MB."""


_MAX_RESULT_BYTES: Final = 1024**3
"""Result files of a study; those of 2,000 slices have 270 MB in base64."""

_FILE_SECONDS: Final = 600.0
"""Longest wait for the next result file of a study."""


@dataclass(frozen=True, slots=True)
class StudyResults:
    """Result of a study.

    Attributes:
        answer: of its series.
        files: result files by name, such as `series-0/segmentation.dcm`; empty unless asked for.
    """

    answer: StudyAnswer
    files: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Retry:
    """Policy for repeating requests to a busy service.

    Attributes:
        attempts: maximum number of requests, including the first.
        longest_seconds: maximum wait between two requests; limits Retry-After.
        default_seconds: wait if the answer has no Retry-After.
    """

    attempts: int = 5
    longest_seconds: float = 30.0
    default_seconds: float = 1.0

    def wait(self, attempt: int, response: "httpx2.Response") -> float | None:
        """Return the seconds to wait after `attempt` (from 1), or None to stop repeating."""
        if response.status_code != 503 or attempt >= self.attempts:
            return None
        try:
            seconds = float(response.headers.get("retry-after", self.default_seconds))
        except ValueError:  # a date; this service sends seconds
            seconds = self.default_seconds
        return self.default_seconds if isnan(seconds) else min(max(seconds, 0.0), self.longest_seconds)


class Client:
    """Client of a service; safe to share between threads.

    Args:
        url: address of the service; without a scheme it is http.
        api_key: sent as X-API-Key.
        timeout: seconds for connecting and for each wait for data.
        retry: policy for answers with status 503.
        transport, sleep: for tests.

    Every method raises `UnreachableError` if no answer comes, `ProblemError` for an error answer of the service, and
    `AnswerError` for any other answer. `operating_point` names the threshold of the model's card that gives the label;
    None is that of the service's settings.
    """

    def __init__(
        self,
        url: str = LOCAL,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retry: Retry = Retry(),
        transport: "httpx2.BaseTransport | None" = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._retry = retry
        self._sleep = sleep
        self._http = _open(_address(url), {"X-API-Key": api_key} if api_key else {}, timeout, transport)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(
        self, image: ImageLike, *, window: Window | None = None, operating_point: str | None = None
    ) -> Prediction:
        """Ask for the probability of one slice.

        Args:
            image: a file or an image in memory.
            window: for an array of Hounsfield units, such as `LUNG`.
            operating_point: see `Client`.

        Example:
            client.predict(hounsfield, window=LUNG)
        """
        parts = {"files": _form(image, window), "params": _query(operating_point=operating_point)}
        return self._send(Prediction, "POST", "/predict", parts)

    def predict_many(
        self, images: Iterable[ImageLike], *, window: Window | None = None, operating_point: str | None = None
    ) -> Iterator[Prediction | ProblemError | SourceError]:
        """Yield a prediction or an error for each image, in order; a file that can't be read stops no other."""
        for image in images:
            try:
                data = file_bytes(image, window)
            except (OSError, ValueError) as error:
                yield SourceError("unreadable_image", f"The image can't be read: {error}")
                continue
            try:
                answer: Prediction | ProblemError = self.predict(data, operating_point=operating_point)
            except ProblemError as problem:
                answer = problem
            yield answer

    def explain(
        self,
        image: ImageLike,
        *,
        window: Window | None = None,
        lungs: bool = False,
        operating_point: str | None = None,
    ) -> Explanation:
        """Ask for the probability with its heat map; `lungs` draws the outline of the lungs into the overlay."""
        parts = {
            "files": _form(image, window),
            "headers": {"Accept": "application/json"},
            "params": _query(lungs=lungs, operating_point=operating_point),
        }
        return self._send(Explanation, "POST", "/explain", parts)

    def predict_study(
        self,
        paths: PathLike | Iterable[PathLike],
        *,
        every_mm: float | None = None,
        uids: bool = False,
        operating_point: str | None = None,
        report: Callable[[StudyProgress], object] = lambda _: None,
    ) -> StudyAnswer:
        """Ask for one answer for each series of a study.

        Args:
            paths: files of the study: DICOM, NIfTI, zips or pictures; or a folder, which is read with all below it.
                Files are sent under numbers, because a name may be that of a patient. The answer has their paths.
            every_mm: distance between the slices that are read; 0 reads every slice; None: the service chooses.
            uids: whether the answer has UIDs, and names of files.
            operating_point: see `Client`.
            report: called after each slice.

        Raises:
            SourceError: a file can't be read.
        """
        query = _query(every_mm=every_mm, uids=uids, operating_point=operating_point)
        return self._study(paths, {"params": query}, report, MAX_ANSWER_BYTES).answer

    def study_results(
        self,
        paths: PathLike | Iterable[PathLike],
        *,
        every_mm: float | None = None,
        uids: bool = False,
        operating_point: str | None = None,
        report: Callable[[StudyProgress], object] = lambda _: None,
    ) -> StudyResults:
        """Ask for the result files of a study: pictures of key slices, DICOM SEG and SR, or NIfTI masks.

        Args:
            paths, every_mm, uids, operating_point, report: see `predict_study`.

        Raises:
            SourceError: a file can't be read.
        """
        query = _query(every_mm=every_mm, uids=uids, operating_point=operating_point, files=True)
        return self._study(paths, {"params": query, "timeout": _FILE_SECONDS}, report, _MAX_RESULT_BYTES)

    def model(self) -> ModelInfo:
        """Ask which model is served."""
        return self._send(ModelInfo, "GET", "/model", {})

    def ready(self) -> bool:
        """Whether the service is ready; False also if it can't be reached."""
        try:
            with _translate_transport_errors(self._http), self._http.stream("GET", "/health/ready") as response:
                return bool(response.status_code == 200)
        except UnreachableError:
            return False

    def _study(
        self,
        paths: PathLike | Iterable[PathLike],
        parts: dict[str, Any],
        report: Callable[[StudyProgress], object],
        max_bytes: int,
    ) -> StudyResults:
        form = _StudyForm(paths)
        parts = parts | {"headers": {"Accept": "application/x-ndjson"}}
        results = self._ask("POST", "/predict/study", parts, lambda lines: _results(lines, report, max_bytes), form)
        return StudyResults(form.named(results.answer), results.files)

    def _send(self, kind: type[Answer], method: str, path: str, parts: dict[str, Any]) -> Answer:
        return _parsed(*self._ask(method, path, parts, _whole), kind)

    def _ask(
        self,
        method: str,
        path: str,
        parts: dict[str, Any],
        read: Callable[["httpx2.Response"], T],
        form: "_StudyForm | None" = None,
    ) -> T:
        """Send a request until the service is not busy, and read the answer; `form` is opened anew for each."""
        for attempt in range(1, self._retry.attempts + 1):
            files: dict[str, Any] = {} if form is None else {"files": form.fields()}
            with _translate_transport_errors(self._http), self._http.stream(method, path, **parts, **files) as response:
                seconds = self._retry.wait(attempt, response)
                if seconds is None:
                    return read(response)
            self._sleep(seconds)
        raise ClientError("a retry policy needs at least one attempt")


def _open(
    address: str, headers: dict[str, str], timeout: float, transport: "httpx2.BaseTransport | None"
) -> "httpx2.Client":
    """Open the connections: to this machine directly, to another one through the proxy of the environment.

    Raises:
        UsageError: the environment names a proxy or certificates that can't be used.
    """
    import httpx2

    host = urlsplit(address)
    direct = is_loopback(host.hostname or "")
    try:
        return httpx2.Client(
            base_url=address,
            headers=headers | {"Accept-Encoding": "identity"},
            timeout=timeout,
            transport=transport,
            trust_env=not direct,
            verify=httpx2.create_ssl_context() if direct and host.scheme == "https" else True,
        )
    except (ImportError, OSError, ValueError, httpx2.InvalidURL) as error:
        raise unusable_environment("SSL_CERT_FILE, SSL_CERT_DIR", error) from error


def unusable_environment(certificates: str, reason: object) -> UsageError:
    """Build the error of a proxy or of certificates, which the environment names in the variables `certificates`."""
    return UsageError(
        "the proxy or the certificates that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, "
        f"{certificates}) can't be used: {reason}"
    )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine, which no proxy is asked for."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _address(url: str) -> str:
    """Complete an address: http where no scheme is named.

    Raises:
        UsageError: it is not an address of http or https.
    """
    address = url.strip()
    if "://" not in address:
        address = f"http://{address}"
    try:
        parts = urlsplit(address)
        named = parts.hostname and parts.port != 0 and parts.scheme in ("http", "https")
        (parts.hostname or "").encode("idna")
    except ValueError:  # a port that is not a number, half of an IPv6 address, or a label that is empty or too long
        named = None
    if not named:
        raise UsageError(f"{url!r} is not the address of a service; write it like {LOCAL}")
    return address.rstrip("/")


def _query(**values: Any) -> dict[str, Any]:
    """Build the query parameters, without those that the service chooses."""
    return {name: value for name, value in values.items() if value is not None}


_SENT: Final = "study/"
"""Start of the names under which the files of a study are sent; numbers of folder and file follow."""


class _StudyForm:
    """The files of a study, sent under numbers.

    Raises:
        SourceError: a path leads to no file.
    """

    def __init__(self, paths: PathLike | Iterable[PathLike]) -> None:
        self._paths = [source.path for source in study_sources(paths)]
        in_order = sorted(self._paths, key=natural_order)  # of pictures, the order of the names is that of the slices
        folders = list(dict.fromkeys(map(_folder, in_order)))
        numbers = {folder: number for number, folder in enumerate(folders)}
        self._names = {path: f"{_SENT}{numbers[_folder(path)]}/{rank}" for rank, path in enumerate(in_order)}

    def fields(self) -> list[tuple[str, tuple[str, "_LaterFile"]]]:
        """Build the fields of the form, for one request."""
        return [("image", (self._names[path], _LaterFile(path))) for path in self._paths]

    def named(self, answer: StudyAnswer) -> StudyAnswer:
        """Replace the numbers in an answer by the paths; files in zips keep their names."""
        paths = {name: path for path, name in self._names.items()}
        return answer.renamed(lambda name: paths.get(name, name))


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


class _LaterFile:
    """A file that is opened at the first read, and closed at its end."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def read(self, size: int = -1) -> bytes:
        """Read the next bytes.

        Raises:
            SourceError: the file can't be read.
        """
        try:
            if self._file is None:
                self._file = open_source(self._path)
            data = self._file.read(size)
        except OSError as error:
            reason = error.strerror or str(error)
            raise SourceError("unreadable_file", f"{self._path}: can't be read: {reason}") from error
        if not data:
            self._file.close()
        return data


def _form(image: ImageLike, window: Window | None) -> dict[str, tuple[str, bytes, str]]:
    """Build the form. The file name is not sent, because it may contain the name of a patient."""
    return {"image": ("image", file_bytes(image, window), "application/octet-stream")}


@contextmanager
def _translate_transport_errors(client: "httpx2.Client") -> Iterator[None]:
    import httpx2

    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
        address, reason = client.base_url.netloc.decode(), str(error) or type(error).__name__
        raise UnreachableError(f"no response from the service at {address}: {reason}") from error


def _whole(response: "httpx2.Response") -> tuple[int, bytes]:
    """Read status and body of an answer."""
    return response.status_code, b"".join(_chunks(response, MAX_ANSWER_BYTES))


def _chunks(response: "httpx2.Response", max_bytes: int) -> Iterator[bytes]:
    """Read an answer, whatever length it announces.

    Raises:
        AnswerError: it has more than `max_bytes`.
    """
    count = 0
    for chunk in response.iter_bytes():
        count += len(chunk)
        if count > max_bytes:
            raise AnswerError(f"the response has more than {max_bytes} bytes: is this the service's address?")
        yield chunk


def _results(response: "httpx2.Response", report: Callable[[StudyProgress], object], max_bytes: int) -> StudyResults:
    """Read the lines of a study: progress, then the answer or a problem, then result files.

    Raises:
        ProblemError, AnswerError: as `_parsed`, and if there are more than `max_bytes`.
        UnreachableError: there is no answer.
    """
    if response.status_code >= 400:
        _parsed(*_whole(response), Problem)
    answer, files = None, {}
    for text in _lines(response, max_bytes):
        line = _parsed(response.status_code, text, StudyLine)
        if line.progress is not None:
            report(line.progress)
        if line.problem is not None:
            problem = line.problem
            raise ProblemError(problem.status, problem.code, problem.detail, problem.request_id)
        if line.file is not None:
            files[line.file.path] = line.file.content
        answer = line.answer or answer
    if answer is None:
        raise UnreachableError("the response ended before its last line")
    return StudyResults(answer, files)


def _lines(response: "httpx2.Response", max_bytes: int) -> Iterator[bytes]:
    """Yield whole lines as they arrive."""
    held: list[bytes] = []
    for chunk in _chunks(response, max_bytes):
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield b"".join((*held, end))
            held.clear()
        held.append(rest)


def _parsed(status: int, body: bytes, kind: type[Answer]) -> Answer:
    """Parse an answer; fields that it does not know are ignored.

    Raises:
        ProblemError: the service answered with a problem.
        AnswerError: the answer is neither.
    """
    try:
        if status < 400:
            return kind.model_validate_json(body)
        problem = Problem.model_validate_json(body)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "its JSON"
        raise AnswerError(
            f"status {status}, but not in this service's form (see {place}): is this its address, and is "
            f"this client's version {__version__} the service's?"
        ) from error
    raise ProblemError(status, problem.code, problem.detail, problem.request_id)
