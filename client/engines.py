"""Engines of `covid-ct predict`: the model in this process, or a service."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from client.errors import ClientError
from client.http import Client
from client.results import LungInvolvement, Prediction
from service.imaging.decode import Slice, decode, to_input

if TYPE_CHECKING:
    from service.model.prediction import Prediction as NetworkPrediction
    from service.model.predictor import Predictor


class Engine(Protocol):
    """Answers slices, locally or through a service."""

    @property
    def model(self) -> str:
        """Name, version and start of the hash of the model."""
        ...

    def predict(self, image: bytes | Slice) -> Prediction:
        """Predict for one slice; raises `ServiceError` or `ClientError`."""
        ...

    def close(self) -> None:
        """Release model or connection."""
        ...


class LocalEngine:
    """Runs the model of a models folder in this process, on a CPU with all processors or so many threads."""

    def __init__(self, models: Path, device: str = "auto", threads: int | None = None) -> None:
        from service.errors import ModelFileError
        from service.model.loading import LoadOptions, load_predictor

        try:
            self._predictor: Predictor = load_predictor(LoadOptions(models, device=device, threads=threads))
        except ModelFileError as error:
            raise ClientError(str(error)) from error

    @property
    def model(self) -> str:
        """See `Engine.model`."""
        return _model(self._predictor.card.name, self._predictor.card.version, self._predictor.sha256)

    def predict(self, image: bytes | Slice) -> Prediction:
        """See `Engine.predict`; a picture that fails a check is refused like a service does by default."""
        from service.model.checks import SCORE_THRESHOLD, refusal, run_checks

        predictor, card = self._predictor, self._predictor.card
        ct_slice = to_input(decode(image) if isinstance(image, bytes) else image, card.input_size)
        (answer,) = predictor.submit(lambda: predictor.predict_now([ct_slice])).result()
        if isinstance(answer, Exception):
            raise answer
        check = run_checks(answer.check_scores, card.checks)
        if check.reason is not None:
            raise refusal(check.reason)
        return Prediction(
            probability=answer.probability,
            label=card.label_of(answer.probability),
            threshold=card.threshold,
            model=card.name,
            version=card.version,
            ood_score=check.score,
            ood_threshold=SCORE_THRESHOLD,
            flagged=False,
            lung_involvement=_involvement(answer),
            lung_fraction=answer.lung_fraction,
        )

    def close(self) -> None:
        """See `Engine.close`."""
        self._predictor.close()


class RemoteEngine:
    """Asks a service."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._client = Client(url, api_key=api_key)
        try:
            info = self._client.model()
        except BaseException:
            self._client.close()
            raise
        self.model = _model(str(info.card.get("name")), str(info.card.get("version")), info.sha256)

    def predict(self, image: bytes | Slice) -> Prediction:
        """See `Engine.predict`."""
        return self._client.predict(image)

    def close(self) -> None:
        """See `Engine.close`."""
        self._client.close()


def _involvement(answer: "NetworkPrediction") -> LungInvolvement | None:
    found = answer.lung_involvement
    return None if found is None else LungInvolvement(found.both, found.left, found.right)


def _model(name: str, version: str, sha256: str) -> str:
    return f"{name} {version} {sha256[:12]}"
