"""LitServe, set up like its documentation: setup, decode_request, predict, encode_response."""

import os
from typing import cast

import litserve
from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from benchmarks.peers.model import Model
from service.imaging.decode import Slice


class CovidCt(litserve.LitAPI):
    """Predicts one slice per request."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the model, once for each worker."""
        self.model = Model()

    def decode_request(self, request: Request) -> Slice:
        """Read the multipart field `image` and prepare the network's input."""
        form = cast(FormData, request)  # LitServe passes the form of a multipart request
        return self.model.prepare(cast(UploadFile, form["image"]).file.read())

    def predict(self, x: Slice) -> float:
        """Run the network."""
        return self.model.predict([x])[0]

    def encode_response(self, output: float) -> dict[str, float]:
        """Return the body of the response."""
        return {"probability": output}


if __name__ == "__main__":
    workers = int(os.environ["BENCH_WORKERS"])
    tuned = os.environ["BENCH_TUNED"] == "1"
    # no time limit: with 64 connections, requests wait longer than the default
    server = litserve.LitServer(
        CovidCt(), accelerator="cpu", workers_per_device=workers, fast_queue=tuned, timeout=False
    )
    server.run(port=int(os.environ["BENCH_PORT"]), host="127.0.0.1", generate_client_file=False, log_level="warning")
