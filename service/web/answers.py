"""Response bodies of predictions."""

from service.inference.pipeline import Assessment
from service.inference.served_model import ServedModel
from service.inference.stages import StageTimer
from service.model.checks import SCORE_THRESHOLD
from service.model.prediction import Prediction
from service.web.schemas import LungInvolvement, ModelName, OutOfDistribution, PredictionBody, Timings


def prediction_body(assessment: Assessment, model: ServedModel, request_id: str, stages: StageTimer) -> PredictionBody:
    """Build the answer to a client."""
    card, prediction, check = model.card, assessment.prediction, assessment.check
    return PredictionBody(
        request_id=request_id,
        probability=prediction.probability,
        label=assessment.label,
        threshold=assessment.point.threshold,
        operating_point=assessment.point.name,
        lung_involvement=_involvement(prediction),
        lung_fraction=prediction.lung_fraction,
        model=ModelName(name=card.name, version=card.version),
        out_of_distribution=OutOfDistribution(
            score=check.score, threshold=SCORE_THRESHOLD, flagged=check.failed, reason=check.reason
        ),
        timings_milliseconds=Timings(**stages.milliseconds),
    )


def _involvement(prediction: Prediction) -> LungInvolvement | None:
    found = prediction.lung_involvement
    return None if found is None else LungInvolvement(both=found.both, left=found.left, right=found.right)
