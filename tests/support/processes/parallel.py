"""`torchrun -m tests.support.processes.parallel FOLDER STEPS`: train the lesion network on a few generated slices.

FOLDER gets the checkpoint, and losses-N.json with the losses of each step, N being the number of processes. STEPS ends
the run early: the schedule is that of six.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support.sources.lesion_sources import draw_chest, write_clear, write_labelled, write_lesions
from training.data.ct_slices import CtSlice, read_images, read_labelled, read_lesions
from training.learning import lesion_training
from training.learning.lesion_samples import LesionSamples, TrainingSet
from training.learning.lesion_training import LesionTraining, train_lesion_network
from training.learning.lung_crops import FoundLungs
from training.lesion_recipe import LesionRecipe
from training.network.lesion_network import LesionNetwork
from training.network.lung_box import find_box
from training.run.machine import Machine
from training.run.processes import current, joined

STEPS = 6
BATCH = 3
BOX_SIZE = 96, 128


def read_slices(folder: Path) -> list[CtSlice]:
    """Read generated slices of all kinds, and write them first if they are missing."""
    if not (folder / "hospital").exists():
        write_labelled(folder / "hospital")
        write_lesions(folder / "lesions")
        write_clear(folder / "clear")
    lesions, clear = read_lesions(folder / "lesions"), read_images(folder / "clear", "clear")
    return [*read_labelled(folder / "hospital"), *lesions, *clear]


def perfect_lungs(count: int) -> FoundLungs:
    """The drawn lungs, as a perfect finder would find them."""
    lungs = np.repeat(draw_chest(0, lesion=False, size=64)[1][None].astype(np.float16), count, axis=0)
    return FoundLungs(lungs, find_box(torch.from_numpy(lungs).float()).numpy())


def samples_of(slices: Sequence[CtSlice], seed: int = 0) -> LesionSamples:
    """Samples of slices with perfect lungs."""
    seen = TrainingSet(slices, perfect_lungs(len(slices)), {"hospital": 1.0, None: 0.0})
    return LesionSamples(seen, BOX_SIZE, np.random.default_rng(seed))


def train(folder: Path, steps: int) -> LesionNetwork:
    """Train for so many of six steps, with a checkpoint at each, and write the losses."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    samples = samples_of(read_slices(folder / "slices"))
    recipe = LesionRecipe(batch_size=BATCH, warm_up_steps=2, cool_down_steps=1)
    machine = Machine(torch.device("cpu"), None, 0)
    training = LesionTraining(recipe, STEPS, machine, folder / "network.ckpt")
    losses: list[dict[str, float]] = []
    step = lesion_training._step

    def recorded(*arguments: Any) -> dict[str, float]:
        if len(losses) == steps:
            raise SystemExit(0)
        losses.append(step(*arguments))
        if current().is_first:
            (folder / f"losses-{current().count}.json").write_text(json.dumps(losses))
        return losses[-1]

    lesion_training._step = recorded  # type: ignore[assignment]
    lesion_training._CHECKPOINT_STEPS = 1  # type: ignore[misc]
    return train_lesion_network(LesionNetwork(), samples, training)


if __name__ == "__main__":
    with joined():
        train(Path(sys.argv[1]), int(sys.argv[2]))
