"""The model that every peer serves: the shipped file with the service's decoder; only frameworks differ."""

import os
from pathlib import Path

import numpy as np
import torch

from service.imaging.decode import DecodeLimits, Slice, decode, to_input
from service.model.file import load_on_cpu, read_manifest


class Model:
    """Network of the folder BENCH_MODELS with torch's number of threads: fp32, or the int8 file by BENCH_PRECISION."""

    def __init__(self) -> None:
        folder = Path(os.environ["BENCH_MODELS"])
        wanted = "int8" if os.environ.get("BENCH_PRECISION") == "int8" else "fp16"
        file = next(file for file in read_manifest(folder).files if file.precision == wanted)
        artifact = load_on_cpu(folder, file)
        self._network = artifact.network
        self._size = artifact.card.input_size

    def prepare(self, data: bytes) -> Slice:
        """Decode the bytes of an image to uint8 (1, S, S)."""
        return to_input(decode(data, DecodeLimits()), self._size)

    def predict(self, slices: list[Slice]) -> list[float]:
        """Return the probability of each slice."""
        with torch.inference_mode():
            probabilities: list[float] = self._network(torch.from_numpy(np.stack(slices)))["probability"].tolist()
        return probabilities
