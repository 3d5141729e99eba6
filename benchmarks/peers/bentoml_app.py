"""BentoML, set up like its documentation: a service class with one API."""

import os
from pathlib import Path

import bentoml

from benchmarks.peers.model import Model


@bentoml.service(workers=int(os.environ["BENCH_WORKERS"]), traffic={"timeout": 300})
class CovidCt:
    """Predicts one slice per request."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api
    def predict(self, image: Path) -> dict[str, float]:
        """Return the probability for the multipart field `image`."""
        return {"probability": self.model.predict([self.model.prepare(image.read_bytes())])[0]}
