"""The upper limit of the rate: the network in a loop, without HTTP, queue or decoder."""

import time
from pathlib import Path

import numpy as np
import torch

from service.imaging.decode import decode, to_input
from service.model.card import Precision
from service.model.choice import choose_file
from service.model.file import load_model, read_manifest
from service.processors import usable_processors


class BareLoop:
    """One network of a models folder on the CPU, called with one slice at a time, and its card."""

    def __init__(self, models: Path, precision: Precision, image: bytes) -> None:
        torch.set_num_threads(usable_processors())
        file = choose_file(read_manifest(models), precision)
        artifact = load_model(models / file.name, torch.device("cpu"), precision, file.sha256)
        self.card = artifact.card
        self._network = artifact.network
        self._image = image
        self._batch = self._prepare()
        self.rate(1.0)  # the first runs of TorchScript compile

    def rate(self, seconds: float) -> float:
        """Measure slices per second for at least `seconds` seconds."""
        count = 0
        started = time.perf_counter()
        with torch.inference_mode():
            while time.perf_counter() - started < seconds:
                self._network(self._batch)
                count += 1
        return count / (time.perf_counter() - started)

    def seconds_with_decoding(self) -> float:
        """Measure the seconds from the file's bytes to the probability, without a server."""
        started = time.perf_counter()
        with torch.inference_mode():
            self._network(self._prepare())["probability"].item()
        return time.perf_counter() - started

    def _prepare(self) -> torch.Tensor:
        return torch.from_numpy(np.stack([to_input(decode(self._image), self.card.input_size)]))
