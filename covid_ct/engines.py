"""Engines of `covid-ct predict`: the model in this process, or a service."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from covid_ct.errors import ClientError, UsageError
from covid_ct.http import Client
from service.api import SlicePrediction
from service.imaging.cage.blocking import BlockingCage
from service.imaging.decode import Slice, to_input

if TYPE_CHECKING:
    from service.model.predictor import Predictor


class Engine(Protocol):
    """Predicts for slices, locally or through a service; a context manager.

    Attributes:
        decoders: read files, in a process of their own.
    """

    decoders: BlockingCage

    @property
    def model(self) -> str:
        """Name, version and start of the hash of the model."""
        ...

    @property
    def operating_point(self) -> str:
        """Name of the threshold on the card of the model that gives the labels."""
        ...

    @property
    def description(self) -> str:
        """Description of the model for people: which one, where it is, and how it computes."""
        ...

    def predict(self, image: bytes | Slice) -> SlicePrediction:
        """Predict for one slice; raises `ServiceError` or `ClientError`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None:
        """Release model or connection, and end the decoders."""
        ...


class LocalEngine:
    """Runs the model of a models folder in this process: the file and the precision that a service chooses here too.

    On a CPU with all processors, or so many threads.
    """

    def __init__(
        self,
        models: Path,
        device: str = "auto",
        threads: int | None = None,
        *,
        operating_point: str | None = None,
    ) -> None:
        from service.errors import MalformedRequestError, ModelFileError
        from service.model.loading import LoadOptions, load_predictor

        try:
            self._predictor: Predictor = load_predictor(LoadOptions(models, device=device, threads=threads))
        except ModelFileError as error:
            raise ClientError(str(error)) from error
        self.decoders = BlockingCage()
        try:
            self._point = self._predictor.card.operating_point(operating_point)
        except MalformedRequestError as error:
            self._predictor.close()
            raise UsageError(error.detail) from error
        self._models = models

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._predictor.close()
        self.decoders.close()

    @property
    def model(self) -> str:
        """See `Engine.model`."""
        return _model(self._predictor.card.name, self._predictor.card.version, self._predictor.sha256)

    @property
    def operating_point(self) -> str:
        """See `Engine.operating_point`."""
        return self._point.name

    @property
    def description(self) -> str:
        """See `Engine.description`."""
        predictor = self._predictor
        return f"{self.model} from {self._models.resolve()}, {predictor.precision} on {predictor.device.type}"

    def predict(self, image: bytes | Slice) -> SlicePrediction:
        """See `Engine.predict`; a picture that fails a check is refused like a service does by default."""
        from service.model.assess import assess, refusal

        predictor, card = self._predictor, self._predictor.card
        if isinstance(image, bytes):
            network_input = self.decoders.decode(image, input_size=card.input_size).network_input
        else:
            network_input = to_input(image, card.input_size)
        (prediction,) = predictor.submit(lambda: predictor.predict_now([network_input])).result()
        if isinstance(prediction, Exception):
            raise prediction
        assessment = assess(prediction, card, self._point)
        if assessment.check.reason is not None:
            raise refusal(assessment.check.reason)
        return SlicePrediction.of(assessment, card)


class RemoteEngine:
    """Asks a service."""

    def __init__(self, url: str, api_key: str | None, operating_point: str | None = None) -> None:
        self.decoders = BlockingCage()
        self._client = Client(url, api_key=api_key)
        try:
            info = self._client.model()
            _check_point(operating_point, info.card.operating_points)
        except BaseException:
            self._client.close()
            raise
        self.model = _model(info.card.name, info.card.version, info.sha256)
        self.operating_point = operating_point or info.operating_point
        self.description = f"{self.model} at {url}, {info.precision} on {info.device}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self.decoders.close()

    def predict(self, image: bytes | Slice) -> SlicePrediction:
        """See `Engine.predict`."""
        return self._client.predict(image, operating_point=self.operating_point)


def _check_point(name: str | None, points: Collection[str]) -> None:
    if name is not None and name not in points:
        known = ", ".join(points) or "none"
        raise UsageError(f"the service's model has no operating point {name!r}; its operating points: {known}")


def _model(name: str, version: str, sha256: str) -> str:
    return f"{name} {version} {sha256[:12]}"
