"""A typed client of the service's API."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from covid_ct.errors import AnswerError, ClientError, ProblemError, SourceError, UnreachableError, UsageError
from covid_ct.images import ImageLike, file_bytes
from service import __version__
from service.api import Explanation, ModelInfo, Prediction, Problem

if TYPE_CHECKING:
    import httpx2

Answer = TypeVar("Answer", bound=BaseModel)

LOCAL: Final = "http://127.0.0.1:8000"


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
            asked = float(response.headers.get("retry-after", self.default_seconds))
        except ValueError:  # a date; this service sends seconds
            asked = self.default_seconds
        return min(max(asked, 0.0), self.longest_seconds) if asked == asked else self.default_seconds


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
        headers = {"X-API-Key": api_key} if api_key else {}
        self._retry = retry
        self._sleep = sleep
        self._http = _httpx().Client(base_url=_address(url), headers=headers, timeout=timeout, transport=transport)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(self, image: ImageLike, *, operating_point: str | None = None) -> Prediction:
        """Ask for the probability of one slice."""
        parts = {"files": _form(image), "params": _point(operating_point)}
        return self._send(Prediction, "POST", "/predict", parts)

    def predict_many(
        self, images: Iterable[ImageLike], *, operating_point: str | None = None
    ) -> Iterator[Prediction | ProblemError | SourceError]:
        """Yield a prediction or an error for each image, in order; a file that can't be read stops no other."""
        for image in images:
            try:
                data = file_bytes(image)
            except (OSError, ValueError) as error:
                yield SourceError("unreadable_image", f"The image can't be read: {error}")
                continue
            try:
                answer: Prediction | ProblemError = self.predict(data, operating_point=operating_point)
            except ProblemError as problem:
                answer = problem
            yield answer

    def explain(self, image: ImageLike, *, lungs: bool = False, operating_point: str | None = None) -> Explanation:
        """Ask for the probability with its heat map; `lungs` draws the outline of the lungs into the overlay."""
        parts = {
            "files": _form(image),
            "headers": {"Accept": "application/json"},
            "params": {"lungs": lungs} | _point(operating_point),
        }
        return self._send(Explanation, "POST", "/explain", parts)

    def model(self) -> ModelInfo:
        """Ask which model is served."""
        return self._send(ModelInfo, "GET", "/model", {})

    def ready(self) -> bool:
        """Whether the service is ready; False also if it can't be reached."""
        try:
            return bool(self._http.get("/health/ready").status_code == 200)
        except _httpx().TransportError:
            return False

    def _send(self, kind: type[Answer], method: str, path: str, parts: dict[str, Any]) -> Answer:
        for attempt in range(1, self._retry.attempts + 1):
            with _translate_transport_errors():
                response = self._http.request(method, path, **parts)
            seconds = self._retry.wait(attempt, response)
            if seconds is None:
                return _parsed(response, kind)
            self._sleep(seconds)
        raise ClientError("a retry policy needs at least one attempt")


def _httpx() -> Any:
    """Import the HTTP library when the first client is made."""
    import httpx2

    return httpx2


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
    except ValueError:  # a port that is not a number, or half of an IPv6 address
        named = None
    if not named:
        raise UsageError(f"{url!r} is not the address of a service; write it like {LOCAL}")
    return address.rstrip("/")


def _point(name: str | None) -> dict[str, Any]:
    """Build the query parameter."""
    return {} if name is None else {"operating_point": name}


def _form(image: ImageLike) -> dict[str, tuple[str, bytes, str]]:
    """Build the form. The file name is not sent, because it may contain the name of a patient."""
    return {"image": ("image", file_bytes(image), "application/octet-stream")}


@contextmanager
def _translate_transport_errors() -> Iterator[None]:
    try:
        yield
    except _httpx().TransportError as error:
        raise UnreachableError(f"no answer from the service: {error or type(error).__name__}") from error


def _parsed(response: "httpx2.Response", kind: type[Answer]) -> Answer:
    """Parse an answer; fields that it does not know are ignored.

    Raises:
        ProblemError: the service answered with a problem.
        AnswerError: the answer is neither.
    """
    try:
        if response.status_code < 400:
            return kind.model_validate_json(response.content)
        problem = Problem.model_validate_json(response.content)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "its JSON"
        raise AnswerError(
            f"status {response.status_code}, but not in this service's form (see {place}): is this its address, and is "
            f"this client's version {__version__} the service's?"
        ) from error
    raise ProblemError(response.status_code, problem.code, problem.detail, problem.request_id)
