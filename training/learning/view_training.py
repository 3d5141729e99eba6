"""Training of the view checker: minutes on one core."""

from dataclasses import dataclass

import torch
from torch import nn

from training.learning.view_pictures import ViewPictures
from training.network.view_checker import ViewChecker
from training.run.machine import Machine
from training.run.progress import progress


@dataclass(frozen=True, slots=True)
class ViewTraining:
    """Settings of the view checker's training.

    Attributes:
        steps: optimiser steps.
        batch_size: pictures a step.
        learning_rate: largest of one cycle.
        machine: device and number format.
    """

    steps: int
    batch_size: int
    learning_rate: float
    machine: Machine


def train_view_checker(pictures: ViewPictures, training: ViewTraining) -> ViewChecker:
    """Train a view checker from random weights and return it in evaluation mode."""
    device = training.machine.device
    checker = ViewChecker()
    checker.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(checker.parameters(), training.learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.learning_rate, training.steps, pct_start=0.15)
    bar = progress(range(training.steps), "training the view checker", "step")
    for _ in bar:
        batch = pictures.batch(training.batch_size)
        with training.machine.autocast():
            views = checker(batch.pictures.to(device))
        loss = nn.functional.binary_cross_entropy_with_logits(views, batch.views.to(device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    return checker.eval()
