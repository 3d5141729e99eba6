"""LitServe, as its documentation has it: setup, decode_request, predict, encode_response."""

import os
from typing import cast

import litserve
from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from benchmarks.peers.model import Model
from service.image import Slice


class CovidCt(litserve.LitAPI):
    """One slice a request."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        """Load the model, once a worker."""
        self.model = Model()

    def decode_request(self, request: Request) -> Slice:
        """The multipart field to an input."""
        form = cast(FormData, request)  # what LitServe makes of a multipart request whose parameter is called one
        return self.model.prepare(cast(UploadFile, form["image"]).file.read())

    def predict(self, x: Slice) -> float:
        """Run the network."""
        return self.model.predict([x])[0]

    def encode_response(self, output: float) -> dict[str, float]:
        """The answer's body."""
        return {"probability": output}


if __name__ == "__main__":
    workers = int(os.environ["BENCH_WORKERS"])
    tuned = os.environ["BENCH_TUNED"] == "1"
    # 0: no time limit, as 64 requests wait longer than the default here
    server = litserve.LitServer(
        CovidCt(), accelerator="cpu", workers_per_device=workers, fast_queue=tuned, timeout=False
    )
    server.run(port=int(os.environ["BENCH_PORT"]), host="127.0.0.1", generate_client_file=False, log_level="warning")
