"""Plan of a study: the slices of its series that are read, and their combination."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from service.errors import ErrorCode, ServiceError, UnusableImageError
from service.imaging.decode import Slice
from service.imaging.series.files import COMPANIONS, ReadOptions, StudySlice
from service.imaging.series.grouping import Series, SeriesWarning, group_series
from service.model.assess_series import SeriesAssessment, assess_series
from service.model.card import ModelCard, OperatingPoint
from service.model.prediction import NetworkPrediction

EVERY_MM: Final = 5.0
"""Distance between the slices that are read of a thin series. Reading every second slice of series with 6 mm between
their slices, so every 12 mm, moved involvement by 0.7 points at most; docs/experiments.md."""

THIN_MM: Final = 2.5
"""Series with less than this between their slices are thin: not every slice is read unless asked."""

_MOST_REASONS: Final = 3
"""Most frequent reasons in the error of a study without a slice, each with the sentence of its first file."""

_NO_SLICES: Final = "No file is an axial CT slice; send DICOM files, NIfTI, pictures or a zip of a CT series."

_FEW_SLICES: Final = 3
_FEW_ML: Final = 300.0
"""Below either, the result does not describe whole lungs; those of adults have 2 to 6 litres."""


@dataclass(frozen=True, slots=True)
class FileSlice:
    """A slice of a study's file.

    Attributes:
        file: index of the file in the study, from 0.
        name: of the file, as it was sent.
        read: place and pixels.
        preview: JPEG of the slice; None unless previews are asked for.
    """

    file: int
    name: str
    read: StudySlice
    preview: bytes | None = None


@dataclass(frozen=True, slots=True)
class NotASlice:
    """A file or frame of a study without a slice.

    Attributes:
        file, name: as in `FileSlice`.
        error: the reason.
    """

    file: int
    name: str
    error: ServiceError

    @property
    def is_companion(self) -> bool:
        """Whether a study normally has such a file next to its slices, which is skipped, not failed."""
        return self.error.code in COMPANIONS


@dataclass(slots=True)
class SeriesSlice:
    """A slice in the order of its series.

    Attributes:
        file_slice: its file, place and pixels.
        position_mm: along the normal of the slices; None if not known.
        is_wanted: whether it is read; of thin series not every slice is.
        answer: the prediction, or the reason for none; None if the slice was not read.
    """

    file_slice: FileSlice
    position_mm: float | None
    is_wanted: bool
    answer: NetworkPrediction | ServiceError | None = None

    @property
    def prediction(self) -> NetworkPrediction | None:
        """The prediction of a slice with lungs."""
        return self.answer if isinstance(self.answer, NetworkPrediction) else None

    @property
    def reason(self) -> ErrorCode | None:
        """Reason why a slice has no prediction: a failed check, or a failure of the network."""
        return self.answer.code if isinstance(self.answer, ServiceError) else None

    def take_input(self) -> Slice:
        """Return the input of the network, uint8 (1, S, S), and forget it: those of 600 slices have 60 MiB."""
        read = self.file_slice.read
        assert read.network_input is not None  # noqa: S101 - decoded before
        self.file_slice = replace(self.file_slice, read=replace(read, network_input=None))
        return read.network_input

    @property
    def is_seen(self) -> bool:
        """Whether the amount of lung in the slice is known; no lung is normal in a series."""
        return self.prediction is not None or self.reason == ErrorCode.NO_LUNGS


@dataclass(slots=True)
class SeriesToRead:
    """A series while its slices are read.

    Attributes:
        series: positions and warnings.
        slices: from the feet to the head.
    """

    series: Series
    slices: list[SeriesSlice]

    @property
    def wanted(self) -> list[int]:
        """Indices of the slices to read, from the middle outwards: the lungs are in the middle."""
        middle = (len(self.slices) - 1) / 2
        indices = [index for index, slice_ in enumerate(self.slices) if slice_.is_wanted]
        return sorted(indices, key=lambda index: abs(index - middle))

    def is_beyond_lungs(self, index: int) -> bool:
        """Whether a slice nearer to the middle has no lungs, so that the lung finder should look first.

        It takes a fifth of the time of the whole network, which reads the slice afterwards if there are lungs.
        """
        middle = len(self.slices) // 2
        inner = range(middle, index) if index > middle else range(index + 1, middle + 1)
        return any(isinstance(self.slices[other].answer, ServiceError) for other in inner)

    def assess(self, card: ModelCard, point: OperatingPoint) -> SeriesAssessment | None:
        """Combine the predictions of the slices; None if none has lungs. Indices are those of `slices`."""
        seen = [index for index, slice_ in enumerate(self.slices) if slice_.is_seen]
        geometry = None if self.series.geometry is None else self.series.geometry.select(seen)
        assessment = assess_series([self.slices[index].prediction for index in seen], geometry, card, point)
        return assessment and assessment.renumbered(seen)

    def warnings(self, assessment: SeriesAssessment | None) -> dict[SeriesWarning, str]:
        """Return the warnings of its positions, and one if the result rests on little lung."""
        if assessment is None:
            return self.series.warnings
        with_lungs = sum(slice_.prediction is not None for slice_ in self.slices)
        volume = assessment.lung_volume_ml
        if with_lungs >= _FEW_SLICES and (volume is None or volume >= _FEW_ML):
            return self.series.warnings
        amount = "" if volume is None else f", {volume:.0f} ml"
        detail = f"Only {with_lungs} of {len(self.slices)} slices show lungs{amount}: this is no result of whole lungs."
        return self.series.warnings | {SeriesWarning.FEW_LUNGS: detail}


@dataclass(slots=True)
class Study:
    """The series of a study, and the files that belong to none.

    Attributes:
        series: in the order of their first files.
        others: files and frames without a slice, in the order of the files.
    """

    series: list[SeriesToRead]
    others: list[NotASlice] = field(default_factory=list)

    def to_read(self) -> Iterator[tuple[SeriesToRead, int]]:
        """Yield the slices to read that have no answer yet, one series after the other."""
        for series in self.series:
            for index in series.wanted:
                if series.slices[index].answer is None:
                    yield series, index

    def check_lungs(self) -> None:
        """Check that a slice has a prediction.

        Raises:
            ServiceError: the network failed at a slice, and no slice has a prediction.
            UnusableImageError: no slice shows lungs.
        """
        slices = [slice_ for series in self.series for slice_ in series.slices if slice_.answer is not None]
        errors = [slice_.answer for slice_ in slices if isinstance(slice_.answer, ServiceError)]
        if len(errors) < len(slices):
            return
        for error in errors:
            if error.status >= 500 and error.code != ErrorCode.NO_LUNGS:
                raise error
        raise UnusableImageError(
            f"None of the {len(slices)} slices that were read shows lungs in a usable window; send a chest CT series.",
            code=ErrorCode.NO_LUNGS,
            title="No lungs found",
        )

    def to_decode(self) -> dict[int, list[SeriesSlice]]:
        """List the slices to read of which only the place is known, by index of their file."""
        files: dict[int, list[SeriesSlice]] = {}
        for series, index in self.to_read():
            slice_ = series.slices[index]
            if slice_.file_slice.read.network_input is None:
                files.setdefault(slice_.file_slice.file, []).append(slice_)
        return files


def frames_to_decode(slices: Sequence[SeriesSlice], options: ReadOptions) -> ReadOptions:
    """Return the options for decoding some slices of one file, in their order."""
    return replace(options, thin_mm=0.0, frames=tuple(slice_.file_slice.read.frame for slice_ in slices))


def set_decoded(slice_: SeriesSlice, decoded: StudySlice | ServiceError) -> None:
    """Give a slice its pixels, or the reason why it has none as its answer."""
    if isinstance(decoded, ServiceError):
        slice_.answer = decoded
    else:
        slice_.file_slice = replace(slice_.file_slice, read=decoded)


def thin_mm(every_mm: float | None) -> float:
    """Return the distance below which slices are decoded only once it is known which of them are read."""
    return THIN_MM if every_mm is None else every_mm


def plan_study(file_slices: Sequence[FileSlice], others: Sequence[NotASlice], every_mm: float | None = None) -> Study:
    """Group slices into series, and choose those to read.

    Args:
        file_slices: slices in the order of their files.
        others: files without a slice.
        every_mm: distance between the slices that are read; 0 reads every slice; None: `EVERY_MM` in thin series.

    Raises:
        UnusableImageError: there is no slice.
    """
    if not file_slices:
        raise _no_slices(others)
    duplicates: list[NotASlice] = []
    planned = []
    for series in group_series([slice_.read.place for slice_ in file_slices]):
        words = "The slice lies at the position of another one of its series."
        for index in series.duplicates:
            error = ServiceError(words, code=ErrorCode.DUPLICATE_POSITION)
            duplicates.append(NotASlice(file_slices[index].file, file_slices[index].name, error))
        offsets = [None] * len(series.slices) if series.geometry is None else series.geometry.offsets.tolist()
        wanted = _wanted(series, every_mm)
        slices = [
            SeriesSlice(file_slices[index], offset, is_wanted)
            for index, offset, is_wanted in zip(series.slices, offsets, wanted, strict=True)
        ]
        planned.append(SeriesToRead(series, slices))
    return Study(planned, sorted([*others, *duplicates], key=lambda other: other.file))


def _no_slices(others: Sequence[NotASlice]) -> UnusableImageError:
    details = {other.error.code: other.error.detail for other in reversed(others)}
    counts = Counter(other.error.code for other in others)
    reasons = [
        details[code] if len(others) == 1 else f"{count} of {len(others)} files: {details[code]}"
        for code, count in counts.most_common(_MOST_REASONS)
    ]
    return UnusableImageError(
        " ".join([_NO_SLICES, *reasons]),
        code=ErrorCode.NO_SLICES,
        title="No slices",
    )


def _wanted(series: Series, every_mm: float | None) -> list[bool]:
    """Choose slices at least `every_mm` apart, with half a slice of tolerance."""
    geometry = series.geometry
    spacing = None if geometry is None else geometry.spacing
    if geometry is None or not spacing or every_mm == 0 or (every_mm is None and spacing >= THIN_MM):
        return [True] * len(series.slices)
    least = (EVERY_MM if every_mm is None else every_mm) - spacing / 2
    wanted, last = [], -np.inf
    for offset in geometry.offsets.tolist():
        wanted.append(offset - last >= least)
        last = offset if wanted[-1] else last
    return wanted
