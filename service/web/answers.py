"""Response bodies of predictions."""

from service.inference.pipeline import Assessment
from service.inference.served_model import ServedModel
from service.inference.stages import StageTimer
from service.web.schemas import ModelName, OutOfDistribution, PredictionBody, Timings


def prediction_body(assessment: Assessment, model: ServedModel, request_id: str, stages: StageTimer) -> PredictionBody:
    """Build the answer to a client."""
    card = model.card
    return PredictionBody(
        request_id=request_id,
        probability=assessment.prediction.probability,
        label=assessment.label,
        threshold=card.threshold,
        model=ModelName(name=card.name, version=card.version),
        out_of_distribution=OutOfDistribution(
            score=assessment.prediction.ood_score,
            threshold=card.ood_threshold,
            flagged=assessment.is_out_of_distribution,
        ),
        timings_milliseconds=Timings(**stages.milliseconds),
    )
