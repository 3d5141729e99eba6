"""Response bodies of a study, shared by routes, client and command line, without torch or a web framework."""

from collections.abc import Callable
from typing import TypeVar

from pydantic import Field

from service import DISCLAIMER
from service.api import Body, FileBytes, ModelName, Problem
from service.imaging.series.grouping import SeriesWarning
from service.model.assess_series import RULE, SeriesAssessment, Severity
from service.model.card import ModelCard, OperatingPoint
from service.model.prediction import LungInvolvement
from service.model.study import NotASlice, SeriesSlice, Study, StudySeries


class StudySliceAnswer(Body):
    """Result of one slice of a series."""

    index: int = Field(description="place in the series, from 0 at the feet")
    file: int = Field(
        description="place of its file in the study, from 0: in the order of the form, then of names in zips"
    )
    name: str | None = Field(default=None, description="name of the file as it was sent; only with `?uids=true`")
    frame: int | None = Field(default=None, description="number from 1 in a multi-frame DICOM file")
    instance_uid: str | None = Field(default=None, description="SOPInstanceUID; only with `?uids=true`")
    position_mm: float | None = Field(description="along the normal of the slices; null if not known")
    probability: float | None = Field(description="of COVID-19; null where there is a reason")
    lung_involvement: float | None = Field(description="of both lungs, in this slice")
    reason: str | None = Field(
        description="code of the reason for no probability; `no_lungs` is normal above and below the lungs; "
        "`not_read`: between two slices that were read, see `every_mm`",
        examples=["no_lungs"],
    )

    @classmethod
    def of(cls, index: int, slice_: SeriesSlice, position_mm: float | None, uids: bool) -> "StudySliceAnswer":
        """Build the answer to a slice at a place of its series."""
        prediction, source = slice_.prediction, slice_.image.place.source
        involvement = None if prediction is None else prediction.lung_involvement
        return cls(
            index=index,
            file=slice_.file,
            name=slice_.name if uids else None,
            frame=source and source.frame,
            instance_uid=source.sop_instance_uid if source and uids else None,
            position_mm=position_mm,
            probability=None if prediction is None else prediction.probability,
            lung_involvement=None if involvement is None else involvement.both,
            reason=slice_.reason or ("not_read" if slice_.answer is None else None),
        )


class WarningAnswer(Body):
    """Unusual property of a series; the series is read nevertheless."""

    code: SeriesWarning
    detail: str


class SeriesAnswer(Body):
    """Result of one series, a stack of parallel slices."""

    index: int = Field(description="place in the study, from 0")
    study_uid: str | None = Field(default=None, description="StudyInstanceUID; only with `?uids=true`")
    series_uid: str | None = Field(default=None, description="SeriesInstanceUID; only with `?uids=true`")
    rows: int
    columns: int
    pixel_spacing_mm: tuple[float, float] | None = Field(description="between rows, and between columns")
    spacing_mm: float | None = Field(description="median distance between slices, from their positions")
    slices_read: int = Field(description="slices with a probability")
    slices_without_lungs: int
    slices_not_read: int = Field(description="of thin series not every slice is read, see `every_mm`")
    slices_failed: int
    warnings: list[WarningAnswer]
    probability: float | None = Field(description="of COVID-19, by `rule`; null if no slice has lungs")
    lesion_probability: float | None = Field(description="by the same rule; null if the model does not predict it")
    covid_given_lesion: float | None = Field(
        description="probability / lesion_probability; null if the model does not predict it"
    )
    label: str | None = Field(description="COVID at or above the threshold", examples=["COVID"])
    threshold: float = Field(description="of the operating point")
    operating_point: str
    rule: str = Field(default=RULE, description="rule from slices to the series")
    lung_involvement: LungInvolvement | None = Field(
        description="volume of lesion divided by volume of lung; null if no slice has lungs, or the model finds none"
    )
    severity: Severity | None = Field(
        description="band of the involvement of both lungs: CT-0 none, CT-1 up to 25 %, CT-2 50 %, CT-3 75 %, CT-4 more"
    )
    lung_volume_ml: float | None = Field(description="null if the positions of the slices are not known")
    lesion_volume_ml: float | None
    key_slices: list[int] = Field(description="indices of up to three slices with most lesion, at least 10 mm apart")
    slices: list[StudySliceAnswer] = Field(description="from the feet to the head")

    @classmethod
    def of(
        cls, index: int, series: StudySeries, assessment: SeriesAssessment | None, point: OperatingPoint, uids: bool
    ) -> "SeriesAnswer":
        """Build the answer to a series; `assessment` is None if no slice has lungs."""
        slices = [
            StudySliceAnswer.of(place, slice_, position_mm, uids)
            for place, (slice_, position_mm) in enumerate(zip(series.slices, series.positions_mm, strict=True))
        ]
        reasons = [slice_.reason for slice_ in slices]
        place, geometry = series.slices[0].image.place, series.geometry
        ids = place.series if uids and place.source else (None, None)
        return cls(
            index=index,
            study_uid=ids[0],
            series_uid=ids[1],
            rows=place.rows,
            columns=place.columns,
            pixel_spacing_mm=geometry and geometry.pixel_spacing,
            spacing_mm=geometry and geometry.spacing,
            slices_read=reasons.count(None),
            slices_without_lungs=reasons.count("no_lungs"),
            slices_not_read=reasons.count("not_read"),
            slices_failed=sum(reason not in (None, "no_lungs", "not_read") for reason in reasons),
            warnings=[WarningAnswer(code=code, detail=detail) for code, detail in series.warnings(assessment).items()],
            probability=assessment and assessment.probability,
            lesion_probability=assessment and assessment.lesion_probability,
            covid_given_lesion=assessment and assessment.covid_given_lesion,
            label=assessment and assessment.label,
            threshold=point.threshold,
            operating_point=point.name,
            lung_involvement=assessment and assessment.lung_involvement,
            severity=assessment and assessment.severity,
            lung_volume_ml=assessment and assessment.lung_volume_ml,
            lesion_volume_ml=assessment and assessment.lesion_volume_ml,
            key_slices=list(assessment.key_slices) if assessment else [],
            slices=slices,
        )


class OtherFile(Body):
    """A file of a study, or a frame of one, without a slice."""

    file: int = Field(description="place of the file in the study, from 0")
    name: str | None = Field(default=None, description="original name; only with `?uids=true`")
    reason: str = Field(description="code of the reason", examples=["localizer"])
    detail: str

    @classmethod
    def of(cls, other: NotASlice, uids: bool) -> "OtherFile":
        """Build the reason of a file."""
        name = other.name if uids else None
        return cls(file=other.file, name=name, reason=other.error.code, detail=other.error.detail)


_Named = TypeVar("_Named", StudySliceAnswer, OtherFile)


class StudyAnswer(Body):
    """Result of a study: its series, and the files that belong to none."""

    series: list[SeriesAnswer]
    skipped: list[OtherFile] = Field(
        description="files that a study normally has next to its slices: localizers, reports, secondary captures, "
        "reformats, other documents"
    )
    failed: list[OtherFile] = Field(description="files that could not be read")
    model: ModelName
    request_id: str | None = Field(default=None, description="of the service")
    disclaimer: str = DISCLAIMER

    @classmethod
    def of(
        cls, study: Study, card: ModelCard, point: OperatingPoint, *, uids: bool = False, request_id: str | None = None
    ) -> "StudyAnswer":
        """Build the answer once every slice has its own.

        Args:
            study: read by the model of `card`.
            card: of the model.
            point: for the labels.
            uids: whether to give UIDs and names of files, which may identify a patient.
            request_id: of the service.
        """
        return cls(
            series=[
                SeriesAnswer.of(index, series, series.assess(card, point), point, uids)
                for index, series in enumerate(study.series)
            ],
            skipped=[OtherFile.of(other, uids) for other in study.others if other.is_companion],
            failed=[OtherFile.of(other, uids) for other in study.others if not other.is_companion],
            model=ModelName(name=card.name, version=card.version),
            request_id=request_id,
        )

    def without_identifiers(self) -> "StudyAnswer":
        """Return the answer without UIDs and names of files."""
        bare = {"study_uid": None, "series_uid": None}
        series = [
            only.model_copy(
                update=bare | {"slices": [slice_.model_copy(update={"instance_uid": None}) for slice_ in only.slices]}
            )
            for only in self.series
        ]
        return self.model_copy(update={"series": series}).renamed(lambda _: None)

    def renamed(self, rename: Callable[[str], str | None]) -> "StudyAnswer":
        """Return the answer with other names of files."""

        def named(part: _Named) -> _Named:
            return part if part.name is None else part.model_copy(update={"name": rename(part.name)})

        series = [only.model_copy(update={"slices": [named(slice_) for slice_ in only.slices]}) for only in self.series]
        others = {"skipped": list(map(named, self.skipped)), "failed": list(map(named, self.failed))}
        return self.model_copy(update={"series": series, **others})


class StudyProgress(Body):
    """Line of progress of a study, in `application/x-ndjson`."""

    done: int = Field(description="slices with an answer")
    of: int = Field(description="slices to read; before the first one is read, slices found so far")
    seconds_left: float | None = Field(description="estimate; null before the first slice")


class SlicePicture(Body):
    """Picture of a slice and its maps, in `application/x-ndjson` with `?pictures=true`."""

    series: int = Field(description="index of the series")
    index: int = Field(description="index of the slice in its series")
    slice_jpeg: FileBytes = Field(description="grey, in a lung window, in base64")
    lesion_png: FileBytes | None = Field(
        description="the map of `/explain`, 0 is black and 1 is white, in base64; null for a slice that was not read"
    )
    lungs_png: FileBytes | None = Field(description="the lungs in the same way; null if the model does not find lungs")


class ResultFile(Body):
    """Result file of a series, in `application/x-ndjson` with `?files=true`."""

    series: int = Field(description="index of the series", ge=0)
    name: str = Field(examples=["segmentation.dcm"], pattern=r"^\w[\w.-]*$")
    content: FileBytes = Field(description="in base64")

    @property
    def path(self) -> str:
        """Path in the zip or folder of the study."""
        return f"series-{self.series}/{self.name}"


class StudyLine(Body):
    """Line of `application/x-ndjson`: progress, then the result or a problem, then pictures and files if asked."""

    progress: StudyProgress | None = None
    answer: StudyAnswer | None = None
    problem: Problem | None = None
    picture: SlicePicture | None = None
    file: ResultFile | None = None
