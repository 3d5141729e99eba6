"""Share of a training epoch spent in the network: forward and backward passes alone, compared with an epoch."""

import tempfile
import time
from pathlib import Path
from typing import Final

import torch
from torch import nn

from examples.draw_slice import draw_slice
from training.data.batches import training_batches
from training.data.covid_ct import LabelledSlice, Split
from training.learning.fine_tuning import FineTuning
from training.network.slice_network import SliceNetwork
from training.report_recipe import ReportRecipe
from training.run.machine import Machine, find_machine

_BATCHES: Final = 2
"""Batches of the recipe's size; two show whether the next batch is decoded in time."""


def training_efficiency(rounds: int) -> list[float]:
    """Measure the time of the passes alone divided by the time of an epoch of the recipe `report`, once a round.

    The slices are generated (512 x 512) and the weights random. An epoch also augments, collates, runs the optimiser
    and counts.
    """
    recipe = ReportRecipe()
    machine = find_machine("auto", "auto", workers=None)
    count = _BATCHES * recipe.batch_size
    slices = tuple(LabelledSlice(f"{seed}.png", seed % 2, "", "PNG L", draw_slice(seed)[None]) for seed in range(count))
    split = Split("train", slices)
    network = SliceNetwork(recipe.architecture).to(machine.device).to(memory_format=torch.channels_last)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        tuning = FineTuning(network, recipe, machine, Path(folder))
        tuning.train_epoch(training_batches(split, recipe, 0, workers=machine.workers), "warm-up")
        for epoch in range(1, rounds + 1):
            started = time.perf_counter()
            batches = training_batches(split, recipe, epoch, workers=machine.workers)
            tuning.train_epoch(batches, f"epoch {epoch}")
            whole = time.perf_counter() - started
            ratios.append(_seconds_of_passes(network, recipe, machine) / whole)
    return ratios


def _seconds_of_passes(network: SliceNetwork, recipe: ReportRecipe, machine: Machine) -> float:
    """Measure the seconds of the same number of passes over a batch that is already on the device."""
    side, batch_size = recipe.input_size, recipe.batch_size
    images = torch.randint(0, 256, (batch_size, 1, side, side), dtype=torch.uint8, device=machine.device)
    labels = torch.arange(batch_size, device=machine.device) % 2
    started = time.perf_counter()
    for _ in range(_BATCHES):
        with machine.autocast():
            loss = nn.functional.cross_entropy(network(images).float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()  # waits for the device, like the epoch's own count
        network.zero_grad(set_to_none=True)
    return time.perf_counter() - started
