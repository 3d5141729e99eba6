"""The command line and a client of the service's API; without `--url`, the command line needs the extra `model`."""

from covid_ct.errors import ClientError, ProblemError, SourceError, UnreachableError
from covid_ct.http import Client, Retry, StudyResults
from service import DISCLAIMER
from service.api import Explanation, ModelInfo, Prediction
from service.api_study import StudyAnswer, StudyProgress
from service.imaging.window import LUNG, Window
from service.model.prediction import LungInvolvement

__all__ = [
    "DISCLAIMER",
    "LUNG",
    "Client",
    "ClientError",
    "Explanation",
    "LungInvolvement",
    "ModelInfo",
    "Prediction",
    "ProblemError",
    "Retry",
    "SourceError",
    "StudyAnswer",
    "StudyProgress",
    "StudyResults",
    "UnreachableError",
    "Window",
]
