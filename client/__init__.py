"""The command line and a client of the service's API. `Client` needs the extra `client`."""

from client.errors import ClientError, ProblemError, SourceError, UnreachableError
from client.http import Client, Retry
from client.results import NOTICE, Explanation, LungInvolvement, ModelInfo, Prediction

__all__ = [
    "NOTICE",
    "Client",
    "ClientError",
    "Explanation",
    "LungInvolvement",
    "ModelInfo",
    "Prediction",
    "ProblemError",
    "Retry",
    "SourceError",
    "UnreachableError",
]
