"""Engines of the commands: the model in this process, or a service."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

from covid_ct.errors import ClientError, UsageError
from covid_ct.files.slices import SourceSlice
from covid_ct.files.sources import Source
from covid_ct.http import Client, StudyResults
from service.api import SlicePrediction
from service.api_study import StudyAnswer, StudyProgress
from service.imaging.cage.blocking import BlockingCage
from service.imaging.decode import DecodeLimits
from service.imaging.series.files import ReadOptions
from service.imaging.window import LUNG, Window

if TYPE_CHECKING:
    from service.model.predictor import Predictor

Report: TypeAlias = Callable[[StudyProgress], object]
"""Called after each slice of a study."""


@dataclass(frozen=True, slots=True)
class StudyRequest:
    """Files of one study, and how to read them.

    Attributes:
        sources: its files.
        every_mm: distance between the slices that are read; 0 reads every slice; None: 5 mm in thin series.
        window: for Hounsfield units.
        with_files: whether to make the result files.
    """

    sources: Sequence[Source]
    every_mm: float | None = None
    window: Window = LUNG
    with_files: bool = False


class Engine(Protocol):
    """Predicts for slices and studies, locally or through a service; a context manager that releases it.

    Attributes:
        model: name, version and start of the hash of the model.
        operating_point: name of the threshold on the model's card that gives the labels.
        description: of the model for people: which one, where it is, and how it computes.
        decoders: read files, in a process of their own.
    """

    model: str
    operating_point: str
    description: str
    decoders: BlockingCage

    def read_options(self, window: Window) -> ReadOptions:
        """Return the options for reading the slices that `predict` gets."""
        ...

    def predict(self, slice_: SourceSlice) -> SlicePrediction:
        """Predict for one slice; raises `ServiceError` or `ClientError`."""
        ...

    def predict_study(self, request: StudyRequest, report: Report = lambda _: None) -> StudyResults:
        """Predict for the files of one study.

        Args:
            request: its files, and how to read them.
            report: see `Report`.

        Returns:
            The answer with UIDs and names, and the result files.

        Raises:
            ServiceError, ClientError: the study can't be read, or no slice shows lungs.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class LocalEngine:
    """Runs the model of a models folder in this process, in the file and precision that a service would choose.

    Args:
        models: the folder.
        device: auto, cpu or cuda.
        threads: on a CPU; None: one for each processor.
        operating_point: threshold for the label; None is the card's.

    Raises:
        ClientError: no model, or one that can't be used.
        UsageError: the card has no such operating point.
    """

    def __init__(
        self, models: Path, device: str = "auto", threads: int | None = None, *, operating_point: str | None = None
    ) -> None:
        from service.errors import MalformedRequestError, ModelFileError
        from service.model.loading import LoadOptions, load_predictor

        try:
            self._predictor: Predictor = load_predictor(LoadOptions(models, device=device, threads=threads))
        except ModelFileError as error:
            raise ClientError(str(error)) from error
        self.card = self._predictor.card
        self.decoders = BlockingCage()
        try:
            self._point = self.card.operating_point(operating_point)
        except MalformedRequestError as error:
            self.close()
            raise UsageError(error.detail) from error
        self.model = _model(self.card.name, self.card.version, self._predictor.sha256)
        self.operating_point = self._point.name
        computes = f"{self._predictor.precision} on {self._predictor.device.type}"
        self.description = f"{self.model} from {models.resolve()}, {computes}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read_options(self, window: Window) -> ReadOptions:
        """See `Engine.read_options`."""
        return ReadOptions(self.card.input_size, DecodeLimits(), window)

    def predict(self, slice_: SourceSlice) -> SlicePrediction:
        """See `Engine.predict`; a picture that fails a check is refused like a service does by default."""
        from service.model.assess import assess, refusal

        network_input = None if slice_.read is None else slice_.read.network_input
        if network_input is None:
            network_input = self.decoders.network_input(slice_.data, self.card.input_size)
        (prediction,) = self._predictor.submit(lambda: self._predictor.predict_now([network_input])).result()
        if isinstance(prediction, Exception):
            raise prediction
        assessment = assess(prediction, self.card, self._point)
        if assessment.check.reason is not None:
            raise refusal(assessment.check.reason)
        return SlicePrediction.of(assessment, self.card)

    def predict_study(self, request: StudyRequest, report: Report = lambda _: None) -> StudyResults:
        """See `Engine.predict_study`."""
        from covid_ct.local_study import predict_study, read_study
        from service.study_results import study_files

        keep = request.with_files
        options = replace(self.read_options(request.window), keep_pictures=keep, keep_headers=keep)
        study = read_study(request.sources, self.decoders, options, request.every_mm)
        predict_study(study, self._predictor, report)
        answer = StudyAnswer.of(study, self.card, self._point, uids=True)
        files = study_files(study, self.card, self._point, self._predictor.sha256) if request.with_files else ()
        return StudyResults(answer, {file.path: file.content for file in files})

    def close(self) -> None:
        """Release the model, and end the decoders."""
        self._predictor.close()
        self.decoders.close()


class RemoteEngine:
    """Asks a service.

    Args:
        url: of the service.
        api_key: for it.
        operating_point: threshold for the label; None is the service's.

    Raises:
        UnreachableError: no answer.
        UsageError: the card of the service's model has no such operating point.
    """

    def __init__(self, url: str, api_key: str | None, operating_point: str | None = None) -> None:
        self.decoders = BlockingCage()
        self._client = Client(url, api_key=api_key)
        try:
            info = self._client.model()
            _check_point(operating_point, info.card.operating_points)
        except BaseException:
            self.close()
            raise
        self.model = _model(info.card.name, info.card.version, info.sha256)
        self.operating_point = operating_point or info.operating_point
        self.description = f"{self.model} at {url}, {info.precision} on {info.device}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read_options(self, window: Window) -> ReadOptions:
        """See `Engine.read_options`; the service makes the input of its network."""
        return ReadOptions(1, DecodeLimits(), window, keep_pictures=True)

    def predict(self, slice_: SourceSlice) -> SlicePrediction:
        """See `Engine.predict`."""
        picture = None if slice_.read is None else slice_.read.picture
        image = slice_.data if slice_.data or picture is None else picture[0]
        return self._client.predict(image, operating_point=self.operating_point)

    def predict_study(self, request: StudyRequest, report: Report = lambda _: None) -> StudyResults:
        """See `Engine.predict_study`.

        Raises:
            UsageError: the window is not that of the service.
        """
        if request.window != LUNG:
            raise UsageError("a service reads studies in its own window: leave out --window, or --url")
        paths = [source.path for source in request.sources]
        query: dict[str, Any] = {
            "every_mm": request.every_mm,
            "uids": True,
            "operating_point": self.operating_point,
            "report": report,
        }
        if request.with_files:
            return self._client.study_results(paths, **query)
        return StudyResults(self._client.predict_study(paths, **query), {})

    def close(self) -> None:
        """Close the connections, and end the decoders."""
        self._client.close()
        self.decoders.close()


def _check_point(name: str | None, points: Collection[str]) -> None:
    if name is not None and name not in points:
        known = ", ".join(points) or "none"
        raise UsageError(f"the service's model has no operating point {name!r}; its operating points: {known}")


def _model(name: str, version: str, sha256: str) -> str:
    return f"{name} {version} {sha256[:12]}"
