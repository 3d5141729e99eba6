"""Ray Serve, set up like its documentation: a deployment that takes Starlette's request."""

import os
import signal
from typing import cast

from ray import serve
from starlette.datastructures import UploadFile
from starlette.requests import Request

from benchmarks.peers.model import Model


class CovidCt:
    """Predicts one slice per request."""

    def __init__(self) -> None:
        self.model = Model()

    async def __call__(self, request: Request) -> dict[str, float]:
        """Return the probability for the multipart field `image`."""
        async with request.form() as form:
            data = await cast(UploadFile, form["image"]).read()
        return {"probability": self.model.predict([self.model.prepare(data)])[0]}


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])})
    deployment = serve.deployment(CovidCt).options(num_replicas=int(os.environ["BENCH_WORKERS"]))
    serve.run(deployment.bind(), route_prefix="/predict")
    signal.pause()
