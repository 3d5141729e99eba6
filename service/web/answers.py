"""Response bodies of predictions."""

from service.api import Prediction, SlicePrediction, Timings
from service.inference.served_model import ServedModel
from service.inference.stages import StageTimer
from service.model.assess import Assessment


def prediction_body(assessment: Assessment, model: ServedModel, request_id: str, stages: StageTimer) -> Prediction:
    """Build the answer to a client."""
    prediction = SlicePrediction.of(assessment, model.card)
    timings = Timings(**stages.milliseconds)
    return Prediction(**dict(prediction), request_id=request_id, timings_milliseconds=timings)
