"""The model that every peer serves: the shipped file with the service's decoder; only frameworks differ."""

import os
from pathlib import Path

import numpy as np
import torch

from service.imaging.decode import DecodeLimits, Slice, decode, to_input
from service.model.card import Precision
from service.model.choice import choose_file
from service.model.file import load_on_cpu, read_manifest


class Model:
    """Network of the folder BENCH_MODELS with torch's number of threads: fp32, or the int8 file by BENCH_PRECISION."""

    def __init__(self) -> None:
        folder = Path(os.environ["BENCH_MODELS"])
        precision: Precision = "int8" if os.environ.get("BENCH_PRECISION") == "int8" else "fp32"
        artifact = load_on_cpu(folder, choose_file(read_manifest(folder), precision))
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
