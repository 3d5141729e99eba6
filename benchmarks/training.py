"""How much of a training epoch is the network: forward and backward passes alone, against a whole epoch."""

import tempfile
import time
from pathlib import Path
from typing import Final

import torch
from torch import nn

from examples.draw_slice import draw_slice
from training.config import RECIPES, Recipe
from training.data import Scan, Split, training_batches
from training.engine import FineTuning
from training.machine import Machine, find_machine
from training.network import SliceNetwork

_BATCHES: Final = 2
"""Of the recipe's size: as many as show whether the next one is ready in time, which decoding ahead is for."""


def training_efficiency(rounds: int) -> list[float]:
    """Seconds of the passes alone over those of an epoch of the `seed` recipe, in turn; one ratio a round.

    The slices are generated, 512 x 512, and the weights random. The epoch augments, collates, steps the optimiser and
    counts besides.
    """
    recipe = RECIPES["seed"]
    machine = find_machine("auto", "auto", workers=None)
    count = _BATCHES * recipe.batch_size
    scans = tuple(Scan(f"{seed}.png", seed % 2, "", "PNG L", draw_slice(seed)[None]) for seed in range(count))
    split = Split("train", scans)
    network = SliceNetwork(recipe).to(machine.device).to(memory_format=torch.channels_last)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        tuning = FineTuning(network, recipe, machine, Path(folder))
        tuning.train_epoch(training_batches(split, recipe, 0, workers=machine.workers), "warm-up")
        for epoch in range(1, rounds + 1):
            started = time.perf_counter()
            tuning.train_epoch(training_batches(split, recipe, epoch, workers=machine.workers), f"epoch {epoch}")
            whole = time.perf_counter() - started
            ratios.append(_seconds_of_passes(network, recipe, machine) / whole)
    return ratios


def _seconds_of_passes(network: SliceNetwork, recipe: Recipe, machine: Machine) -> float:
    """Seconds of as many forward and backward passes over a batch that is on the device already."""
    size = (recipe.batch_size, 1, recipe.input_size, recipe.input_size)
    images = torch.randint(0, 256, size, dtype=torch.uint8, device=machine.device)
    labels = torch.arange(recipe.batch_size, device=machine.device) % 2
    started = time.perf_counter()
    for _ in range(_BATCHES):
        with machine.autocast():
            loss = nn.functional.cross_entropy(network(images).float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()  # waits for the device, as the epoch's own count does
        network.zero_grad(set_to_none=True)
    return time.perf_counter() - started
