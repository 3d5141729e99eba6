"""Training of the lesion network by several processes; tests/soak/test_torchrun.py starts them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.processes import parallel
from training.learning import lesion_training
from training.learning.lesion_samples import LesionSamples
from training.learning.lesion_training import seeded_dropout
from training.run import processes
from training.run.processes import Processes


def test_the_samples_of_all_processes_are_those_of_one(tmp_path: Path) -> None:
    slices = parallel.read_slices(tmp_path)
    lungs = parallel.perfect_lungs(len(slices))

    def samples() -> LesionSamples:
        return LesionSamples(slices, lungs, {"hospital": 1.0, None: 0.0}, parallel.BOX_SIZE, np.random.default_rng(0))

    whole = samples().batch(5)
    for rank in (0, 1):
        own = Processes(rank, 2).own(5)
        for one, other in zip(whole, samples().batch(5, own), strict=True):
            assert torch.equal(one[list(own)], other)


def test_the_mask_of_a_slice_depends_on_its_seed_alone() -> None:
    layer, values, before = nn.Dropout(0.3), torch.ones(3, 400), torch.get_rng_state()
    with seeded_dropout(layer, [5, 6, 7]):
        whole = layer(values)
    assert torch.equal(torch.get_rng_state(), before), "no other mask is drawn"
    with seeded_dropout(layer, [6]):
        assert torch.equal(layer(values[1:2]), whole[1:2])
    assert whole.eq(0).float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert whole.mean().item() == pytest.approx(1.0, abs=0.1)
    assert not layer(values).eq(whole).all()


def test_losses_of_parts_add_up_to_those_of_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = parallel.read_slices(tmp_path)
    rng = np.random.default_rng(0)
    samples = LesionSamples(
        slices, parallel.perfect_lungs(len(slices)), {"hospital": 1.0, None: 0.0}, parallel.BOX_SIZE, rng
    )
    batch = samples.batch(5)
    outputs = (torch.randn(5, 2, 24, 32), torch.randn(5), torch.randn(5))
    whole = lesion_training._losses(outputs, batch)
    totals = torch.stack([batch.lesion_weight.sum(), batch.lung_weight.sum(), batch.label_weight.sum()])
    monkeypatch.setattr(Processes, "sum", lambda self, values: totals)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(processes, "_current", Processes(rank, 2))
        own = list(Processes(rank, 2).own(5))
        part = type(batch)(*(each[own] for each in batch))
        parts.append(lesion_training._losses(tuple(each[own] for each in outputs), part))  # type: ignore[arg-type]
    for name, value in whole.items():
        assert parts[0][name] + parts[1][name] == pytest.approx(value.item(), rel=1e-5)
