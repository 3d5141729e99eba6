"""A study while it is read: slices of its series with their answers, and files without a slice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import Final

from service.errors import ErrorCode, ServiceError, UnusableImageError, damaged_image
from service.imaging.decode import Slice
from service.imaging.series.files import COMPANIONS, ReadOptions, StudySlice
from service.imaging.series.geometry import VolumeGeometry
from service.imaging.series.grouping import SeriesWarning
from service.model.assess_series import SeriesAssessment, assess_series
from service.model.card import ModelCard, OperatingPoint
from service.model.prediction import NetworkPrediction

_WHOLE_LUNGS_SLICES: Final = 3
_WHOLE_LUNGS_ML: Final = 300.0
"""Below either, the result does not describe whole lungs; those of adults have 2 to 6 litres."""


@dataclass(slots=True)
class SeriesSlice:
    """A slice of a series, from its file to its answer.

    Attributes:
        file: index of its file in the study, from 0.
        name: of the file, as it was sent.
        image: place and pixels; the place alone of a thin slice that is not decoded yet.
        preview: JPEG of the slice; None unless previews are asked for.
        answer: the prediction, or the reason for none; None if the slice was not read.
    """

    file: int
    name: str
    image: StudySlice
    preview: bytes | None = None
    answer: NetworkPrediction | ServiceError | None = None

    @property
    def prediction(self) -> NetworkPrediction | None:
        """The prediction of a slice with lungs."""
        return self.answer if isinstance(self.answer, NetworkPrediction) else None

    @property
    def reason(self) -> ErrorCode | None:
        """Reason why a slice has no prediction: a failed check, or a failure of the network."""
        return self.answer.code if isinstance(self.answer, ServiceError) else None

    @property
    def is_lung_known(self) -> bool:
        """Whether the amount of lung in the slice is known; no lung is normal in a series."""
        return self.prediction is not None or self.reason == ErrorCode.NO_LUNGS

    def take_input(self) -> Slice:
        """Return the input of the network, uint8 (1, S, S), and forget it: those of 600 slices have 60 MiB."""
        network_input = self.image.network_input
        assert network_input is not None  # noqa: S101 - decoded before
        self.image = replace(self.image, network_input=None)
        return network_input


@dataclass(frozen=True, slots=True)
class NotASlice:
    """A file or frame of a study without a slice.

    Attributes:
        file, name: as in `SeriesSlice`.
        error: the reason.
    """

    file: int
    name: str
    error: ServiceError

    @property
    def is_companion(self) -> bool:
        """Whether a study normally has such a file next to its slices, which is skipped, not failed."""
        return self.error.code in COMPANIONS


@dataclass(frozen=True, slots=True)
class FileToDecode:
    """The slices to read of one file of a study, of which only the place is known."""

    index: int
    name: str
    slices: list[SeriesSlice]

    def options(self, options: ReadOptions) -> ReadOptions:
        """Return the options for decoding these slices alone, in their order."""
        return replace(options, thin_mm=0.0, frames=tuple(slice_.image.frame for slice_ in self.slices))

    def set_decoded(self, decoded: Sequence[StudySlice | ServiceError]) -> None:
        """Give each slice its pixels, or the reason why it has none as its answer.

        Args:
            decoded: in the order of the slices; if there are fewer, the last one is the reason for the rest. A worker
                under a file's control may send fewer without a reason.
        """
        last = decoded[-1] if decoded else None
        rest = last if isinstance(last, ServiceError) else damaged_image("some of its frames were not decoded")
        for slice_, image in zip(self.slices, chain(decoded, repeat(rest)), strict=False):
            if isinstance(image, ServiceError):
                slice_.answer = image
            else:
                slice_.image = image


@dataclass(frozen=True, slots=True)
class StudySeries:
    """A series of a study.

    Attributes:
        slices: from the feet to the head.
        wanted: indices of the slices to read, in the order of reading.
        geometry: None if the positions of the slices are not known.
        position_warnings: unusual properties of the positions.
    """

    slices: list[SeriesSlice]
    wanted: list[int]
    geometry: VolumeGeometry | None
    position_warnings: dict[SeriesWarning, str]

    @property
    def positions_mm(self) -> list[float] | list[None]:
        """Position of each slice along the normal of the slices; None if not known."""
        return [None] * len(self.slices) if self.geometry is None else self.geometry.offsets.tolist()

    def is_beyond_lungs(self, index: int) -> bool:
        """Whether a slice nearer to the middle has no lungs, so that the lung finder should look first.

        It takes a fifth of the time of the whole network, which reads the slice afterwards if there are lungs.
        """
        middle = len(self.slices) // 2
        nearer = range(middle, index) if index > middle else range(index + 1, middle + 1)
        return any(self.slices[other].reason is not None for other in nearer)

    def assess(self, card: ModelCard, point: OperatingPoint) -> SeriesAssessment | None:
        """Combine the predictions of the slices; None if none has lungs. Indices are those of `slices`."""
        known = [index for index, slice_ in enumerate(self.slices) if slice_.is_lung_known]
        geometry = None if self.geometry is None else self.geometry.select(known)
        assessment = assess_series([self.slices[index].prediction for index in known], geometry, card, point)
        return assessment and assessment.renumbered(known)

    def warnings(self, assessment: SeriesAssessment | None) -> dict[SeriesWarning, str]:
        """Return the warnings of its positions, and one if the result rests on little lung."""
        if assessment is None:
            return self.position_warnings
        with_lungs = sum(slice_.prediction is not None for slice_ in self.slices)
        volume = assessment.lung_volume_ml
        if with_lungs >= _WHOLE_LUNGS_SLICES and (volume is None or volume >= _WHOLE_LUNGS_ML):
            return self.position_warnings
        amount = "" if volume is None else f", {volume:.0f} ml"
        detail = f"Only {with_lungs} of {len(self.slices)} slices show lungs{amount}: this is no result of whole lungs."
        return self.position_warnings | {SeriesWarning.FEW_LUNGS: detail}


@dataclass(frozen=True, slots=True)
class Study:
    """The series of a study, and the files that belong to none.

    Attributes:
        series: in the order of their first files.
        others: files and frames without a slice, in the order of the files.
    """

    series: list[StudySeries]
    others: list[NotASlice] = field(default_factory=list)

    def to_read(self) -> Iterator[tuple[StudySeries, int]]:
        """Yield the slices to read that have no answer yet, one series after the other."""
        for series in self.series:
            for index in series.wanted:
                if series.slices[index].answer is None:
                    yield series, index

    def to_decode(self) -> list[FileToDecode]:
        """List the slices to read of which only the place is known, by file."""
        files: dict[int, FileToDecode] = {}
        for series, index in self.to_read():
            slice_ = series.slices[index]
            if slice_.image.network_input is None:
                files.setdefault(slice_.file, FileToDecode(slice_.file, slice_.name, [])).slices.append(slice_)
        return list(files.values())

    def check_lungs(self) -> None:
        """Check that a slice has a prediction, once all have their answers.

        Raises:
            ServiceError: no slice has a prediction, and at least one through a failure of the service.
            UnusableImageError: no slice shows lungs.
        """
        answers = [slice_.answer for series in self.series for slice_ in series.slices if slice_.answer is not None]
        errors = [answer for answer in answers if isinstance(answer, ServiceError)]
        if len(errors) < len(answers):
            return
        for error in errors:
            if error.status >= 500:
                raise error
        raise UnusableImageError(
            f"None of the {len(answers)} slices that were read shows lungs in a usable window; send a chest CT series.",
            code=ErrorCode.NO_LUNGS,
            title="No lungs found",
        )
