"""Label of a prediction, from the thresholds of the card and the checks of the image."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, get_args

from service.errors import ErrorCode, UnusableImageError
from service.imaging.window import LUNG
from service.model.card import CheckName, LocalCalibration, ModelCard, OperatingPoint
from service.model.prediction import NetworkPrediction

SCORE_THRESHOLD: Final = 1.0
"""Images above this score fail: scores are relative to the thresholds of the card."""

_ORDER: Final[tuple[CheckName, ...]] = get_args(CheckName)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of all checks of an image.

    Attributes:
        score: highest score of a check, divided by its threshold; 0 if the model has no checks.
        reason: the check that failed, or None.
    """

    score: float
    reason: CheckName | None

    @property
    def failed(self) -> bool:
        """Whether the image is out of distribution, so that its probability is meaningless."""
        return self.reason is not None


@dataclass(frozen=True, slots=True)
class Assessment:
    """A prediction, compared with the thresholds of the card.

    Attributes:
        prediction: by the network.
        point: the operating point that the label follows from.
        label: one of the card's two labels; None if a check failed, because the probability is then meaningless.
        check: result of the checks; if one failed, the image is out of distribution.
    """

    prediction: NetworkPrediction
    point: OperatingPoint
    label: str | None
    check: CheckResult


def assess(prediction: NetworkPrediction, card: ModelCard, point: OperatingPoint) -> Assessment:
    """Calibrate a prediction and compare it with the thresholds of the card and of the operating point."""
    prediction = calibrate(prediction, card.local)
    check = run_checks(prediction.check_scores, card.checks)
    if check.reason == "no_lungs":
        prediction = replace(prediction, lung_involvement=None)  # a share of nothing
    label = None if check.failed else card.label_of(prediction.probability, prediction.lesion_probability, point)
    return Assessment(prediction, point, label, check)


def calibrate(prediction: NetworkPrediction, local: LocalCalibration | None) -> NetworkPrediction:
    """Calibrate the answers of a prediction to a hospital's own slices; without a local calibration it stays."""
    if local is None:
        return prediction
    lesion, covid = prediction.lesion_probability, prediction.covid_given_lesion
    if lesion is None or covid is None:
        return replace(prediction, probability=local.calibrations["probability"].apply(prediction.probability))
    lesion = local.calibrations["lesion_probability"].apply(lesion)
    covid = local.calibrations["covid_given_lesion"].apply(covid)
    return replace(prediction, probability=lesion * covid, lesion_probability=lesion, covid_given_lesion=covid)


def run_checks(scores: Mapping[CheckName, float], thresholds: Mapping[CheckName, float]) -> CheckResult:
    """Compare the network's scores with the thresholds of the card; each threshold has a score."""
    relative = {name: scores[name] / threshold for name, threshold in thresholds.items()}
    failed = [name for name in _ORDER if relative.get(name, 0.0) > SCORE_THRESHOLD]
    return CheckResult(max(relative.values(), default=0.0), failed[0] if failed else None)


def find_refusal(scores: Mapping[CheckName, float], thresholds: Mapping[CheckName, float]) -> UnusableImageError | None:
    """Return the refusal of an image by the scores of its checks; None if it passed them."""
    reason = run_checks(scores, thresholds).reason
    return None if reason is None else refusal(reason)


def checked(prediction: NetworkPrediction, card: ModelCard) -> NetworkPrediction | UnusableImageError:
    """Return a prediction, or the refusal of its image if a check failed."""
    return find_refusal(prediction.check_scores, card.checks) or prediction


def refusal(reason: CheckName) -> UnusableImageError:
    """Build the refusal of an image: the reason, and what to send instead."""
    title, detail = _WORDS[reason]
    return UnusableImageError(detail, code=ErrorCode(reason), title=title)


_WORDS: Final[dict[CheckName, tuple[str, str]]] = {
    "several_panels": (
        "Several pictures in one",
        "The image shows several slices or panels. Cut out one slice, or export it alone, and send that.",
    ),
    "no_lungs": (
        "No lungs found",
        "No lungs were found: the image may be a photograph, another part of the body, or a scout, coronal or "
        "sagittal view. Send one axial chest CT slice that shows lungs.",
    ),
    "turned": (
        "Turned or upside down",
        "The slice is turned or upside down. Send it as a radiologist reads it: the spine at the bottom, the patient's "
        "left on the right of the picture.",
    ),
    "inverted": (
        "Inverted picture",
        "The picture is inverted: air is bright and bone dark. Send it with air black and bone white.",
    ),
    "wrong_window": (
        "Not a lung window",
        "The slice is not in a lung window, so the lungs show no detail. Export the slice in a lung window "
        f"(width {LUNG.width:g}, level {LUNG.centre:g}), or send its DICOM file.",
    ),
}
