"""TorchServe, as its documentation has it: a handler with initialize, preprocess, inference, postprocess."""

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.model import Model
from service.image import Slice


class CovidCt:
    """As many slices as TorchServe has put into a batch."""

    def initialize(self, context: Any) -> None:  # noqa: ARG002 - TorchServe's signature
        """Load the model, once a worker."""
        self.model = Model()

    def preprocess(self, rows: Sequence[dict[str, bytes]]) -> list[Slice]:
        """The multipart field of each request to an input."""
        return [self.model.prepare(bytes(row["image"])) for row in rows]

    def handle(self, rows: Sequence[dict[str, bytes]], context: Any) -> list[dict[str, float]]:  # noqa: ARG002
        """Answer a batch."""
        return [{"probability": each} for each in self.model.predict(self.preprocess(rows))]
