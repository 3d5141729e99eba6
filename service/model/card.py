"""The model card inside a model file, and the manifest (metrics.json) that pins the model files."""

import builtins
import hashlib
import math
import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from service.errors import MalformedRequestError

SCHEMA_VERSION: Final = 2
MANIFEST_NAME: Final = "metrics.json"

Precision: TypeAlias = Literal["fp32", "bf16", "fp16", "int8"]
"""The number format that the network computes in."""

FilePrecision: TypeAlias = Literal["fp16", "int8"]
"""Number format of the weights in a file. fp16 files compute in any precision except int8, int8 files only in int8."""


CheckName: TypeAlias = Literal["several_panels", "inverted", "turned", "no_lungs", "wrong_window"]
"""Names of the checks. If several fail, the first one here is the reason: lungs in one of several panels are small, and
in a picture that is inverted or turned they may not be found."""

_NEW_NAMES: Final = {"balanced": "differential", "screening": "triage"}
"""Names of 2.0 for operating points, which stay valid for one release."""

PROBABILITY_BOUNDS: Final = tuple(tenth / 10 for tenth in range(1, 11))
"""Upper bounds of the histogram of probabilities."""

INVOLVEMENT_BOUNDS: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
"""Upper bounds of the histogram of lung involvement."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Interval(_Record):
    """A score with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class SplitFingerprint(_Record):
    """Identity of one split: SHA-256 over the sorted SHA-256 hashes of its files."""

    count: int
    sha256: str


class SelfCheck(_Record):
    """Seed of a synthetic slice, and the probability that the network must predict for it."""

    seed: int
    probability: float = Field(ge=0, le=1)
    tolerance: dict[Precision, float]


AnswerName: TypeAlias = Literal["lesion_probability", "covid_given_lesion"]
"""Answers of which the probability is the product: is there a lesion; is it COVID-19 rather than another disease."""


class Calibration(_Record):
    """Calibration: the log odds are multiplied by `slope`, then `offset` is added (Platt 1999)."""

    slope: float = Field(gt=0)
    offset: float
    rule: str

    def apply(self, probability: float) -> float:
        """Calibrate a probability."""
        p = min(max(probability, 1e-30), 1 - 1e-7)
        odds = self.slope * (math.log(p) - math.log1p(-p)) + self.offset
        return 1 / (1 + math.exp(-odds)) if odds > 0 else math.exp(odds) / (1 + math.exp(odds))


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Thresholds of the card with their name: the label is the positive one at or above both.

    Attributes:
        name: as on the card.
        threshold: of the probability.
        lesion_threshold: of the lesion probability; 0 for a model that does not answer it.
        purpose: the question that the label answers; empty if the card does not say.
    """

    name: str
    threshold: float
    lesion_threshold: float = 0.0
    purpose: str = ""


class LocalCalibration(_Record):
    """Calibration and thresholds that were fitted to a hospital's own slices; the network is the released one.

    Attributes:
        source: name of the slices.
        count, positives: number of slices, and those of the positive label.
        groups: number of patients; equal to `count` where they are not known.
        date: of the fit, ISO 8601.
        calibrations: of each answer, on top of the network's own; of `probability` for a network before 2.1.
        threshold, threshold_rule, operating_points, lesion_thresholds: as on the card, instead of the card's.
        figures: with intervals over patients, from folds by patient that chose neither calibration nor thresholds.
    """

    source: str
    count: int
    positives: int
    groups: int
    date: str
    calibrations: dict[AnswerName | Literal["probability"], Calibration]
    threshold: float = Field(ge=0, le=1)
    threshold_rule: str
    operating_points: dict[str, Annotated[float, Field(ge=0, le=1)]]
    lesion_thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    figures: dict[str, Interval]


def _without_unknown_range(rule: str) -> str:
    """Remove a range of thresholds that is not known, as model 2.0.1 has it."""
    return re.sub(r";[^;]*None to None$", "", rule)


class ModelCard(_Record):
    """The model card, stored inside the model file.

    Attributes:
        input_size: side of the square input in pixels.
        resize: how a slice is resized to that size; the service refuses an unknown rule.
        labels: names of class 0 and class 1.
        positive_label: the class that the probability is of.
        threshold: of the default operating point: at or above this probability the label is the positive one.
        operating_points: thresholds of the probability by name.
        lesion_thresholds: thresholds of the lesion probability by the same names; the label is positive at or above
            both. Empty if the network does not predict it.
        purposes: by the same names, the question that the label answers.
        calibration: until 2.0, of the probability; None where each answer has its own.
        calibrations: of each answer.
        checks: threshold of each check; an image above it is refused. Empty if the model has none.
        checks_rule: how these thresholds were chosen.
        precision: how the file stores its weights.
        left_out_metrics: scores by source that the model was not trained on, with intervals.
        test_metrics: scores on the test split, with intervals.
        local: calibration to a hospital's own slices, from the manifest; the thresholds are its own.
    """

    schema_version: Literal[2]
    name: str
    version: str
    architecture: str
    input_size: int = Field(gt=0)
    resize: Literal["bilinear-antialias-stretch"]
    labels: tuple[str, str]
    positive_label: str
    threshold: float = Field(ge=0, le=1)
    threshold_rule: Annotated[str, AfterValidator(_without_unknown_range)]
    operating_points: dict[str, Annotated[float, Field(ge=0, le=1)]]
    lesion_thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    purposes: dict[str, str] = {}
    calibration: Calibration | None = None
    calibrations: dict[AnswerName, Calibration] = {}
    checks: dict[CheckName, Annotated[float, Field(gt=0)]]
    checks_rule: str
    precision: FilePrecision
    self_check: SelfCheck
    training_config: dict[str, JsonValue]
    data: dict[str, SplitFingerprint]
    git_commit: str
    libraries: dict[str, str]
    left_out_metrics: dict[str, dict[str, Interval]]
    test_metrics: dict[str, Interval]
    intended_use: str
    limits: str
    local: LocalCalibration | None = None

    def calibrated(self, local: LocalCalibration | None) -> "ModelCard":
        """Return the card with the thresholds of a local calibration."""
        if local is None:
            return self
        names = ("threshold", "threshold_rule", "operating_points", "lesion_thresholds")
        return self.model_copy(update={"local": local, **{name: getattr(local, name) for name in names}})

    def operating_point(self, name: str | None = None) -> OperatingPoint:
        """Find an operating point by name; None and the empty name are that of `threshold`.

        Raises:
            MalformedRequestError: the card has no operating point of this name.
        """
        points = [
            OperatingPoint(point, threshold, self.lesion_thresholds.get(point, 0.0), self.purposes.get(point, ""))
            for point, threshold in self.operating_points.items()
        ]
        if not name:
            default = OperatingPoint("default", self.threshold)
            return next((point for point in points if point.threshold == self.threshold), default)
        wanted = {name, _NEW_NAMES.get(name)}
        named = next((point for point in points if point.name in wanted), None)
        if named is None:
            known = ", ".join(self.operating_points) or "none"
            raise MalformedRequestError(
                f"The model {self.name} {self.version} has no operating point {name!r}; its operating points: {known}."
            )
        return named

    def label_of(self, probability: float, lesion_probability: float | None, point: OperatingPoint) -> str:
        """Choose the label: the positive one at or above both thresholds of `point`."""
        other = self.labels[1 - self.labels.index(self.positive_label)]
        # a network that does not answer whether there is a lesion has no threshold for it
        lesion = lesion_probability is None or lesion_probability >= point.lesion_threshold
        return self.positive_label if lesion and probability >= point.threshold else other


class ManifestFile(_Record):
    """One model file of the manifest."""

    name: str
    precision: FilePrecision
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)

    @classmethod
    def describe(cls, name: str, precision: FilePrecision, data: "builtins.bytes") -> "ManifestFile":
        """Describe a model file called `name` with the content `data`."""
        return cls(name=name, precision=precision, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


class FileAgreement(BaseModel):
    """Agreement of a model file with the published test results.

    Attributes:
        auc: of the file.
        decisions_equal: share of slices with the same label.
        largest_difference: of a probability.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    auc: float
    decisions_equal: float
    largest_difference: float


class Manifest(BaseModel):
    """The part of metrics.json that the service reads.

    Attributes:
        probability_shares: share of the test split's probabilities at or below each of PROBABILITY_BOUNDS, the
            reference of the drift alert. Empty if unknown.
        lung_involvement_shares: share of the test slices with a lung involvement at or below each bound, by bound.
        agreement: by name of the file; empty if unknown.
        local: calibration to a hospital's own slices; None if there is none.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[2]
    files: tuple[ManifestFile, ...] = Field(min_length=1)
    probability_shares: tuple[float, ...] = ()
    lung_involvement_shares: dict[float, float] = {}
    agreement: dict[str, FileAgreement] = {}
    local: LocalCalibration | None = None
