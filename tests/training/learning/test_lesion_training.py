"""Training of the lesion network by one process and by two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.support import parallel
from tests.support.server import ROOT
from training.learning import lesion_training
from training.learning.lesion_samples import LesionSamples
from training.learning.lesion_training import seeded_dropout
from training.run import processes
from training.run.processes import Processes


def test_the_samples_of_all_processes_are_those_of_one(tmp_path: Path) -> None:
    slices = parallel.read_slices(tmp_path)
    lungs = parallel.perfect_lungs(len(slices))

    def samples() -> LesionSamples:
        return LesionSamples(slices, lungs, {"hospital": 1.0, None: 0.0}, np.random.default_rng(0))

    whole = samples().batch(5)
    for rank in (0, 1):
        own = Processes(rank, 2).own(5)
        for one, other in zip(whole, samples().batch(5, own), strict=True):
            assert torch.equal(one[list(own)], other)


def test_the_mask_of_a_slice_depends_on_its_seed_alone() -> None:
    layer, values = nn.Dropout(0.3), torch.ones(3, 400)
    with seeded_dropout(layer, [5, 6, 7]):
        whole = layer(values)
    with seeded_dropout(layer, [6]):
        assert torch.equal(layer(values[1:2]), whole[1:2])
    assert whole.eq(0).float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert whole.mean().item() == pytest.approx(1.0, abs=0.1)
    assert not layer(values).eq(whole).all()


def test_losses_of_parts_add_up_to_those_of_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = parallel.read_slices(tmp_path)
    rng = np.random.default_rng(0)
    samples = LesionSamples(slices, parallel.perfect_lungs(len(slices)), {"hospital": 1.0, None: 0.0}, rng)
    batch = samples.batch(5)
    outputs = (torch.randn(5, 2, 48, 64), torch.rand(5), torch.randn(5), torch.randn(5))
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


def run(folder: Path, count: int, steps: int) -> list[dict[str, float]]:
    """Train for so many steps with torchrun, and return the losses of each."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(count), "-m", "tests.support.parallel", str(folder), str(steps)]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    losses: list[dict[str, float]] = json.loads((folder / f"losses-{count}.json").read_text())
    return losses


@pytest.mark.soak
def test_two_processes_have_the_losses_of_one_and_one_resumes_what_two_began(tmp_path: Path) -> None:
    """Batches of three slices, so that the parts differ in size. Tolerance: 0.1 % of each loss at each step."""
    parallel.read_slices(tmp_path / "one" / "slices")
    parallel.read_slices(tmp_path / "two" / "slices")
    one = run(tmp_path / "one", 1, 6)
    two = run(tmp_path / "two", 2, 3)
    two += run(tmp_path / "two", 1, 3)
    assert len(one) == len(two) == 6
    difference = max(abs(a[name] - b[name]) / abs(a[name]) for a, b in zip(one, two, strict=True) for name in a)
    print(f"\n  soak: losses of two processes differ from those of one by at most {difference:.1e} of their value")
    assert difference < 1e-3
    first, second = (torch.load(tmp_path / name / "network.ckpt", weights_only=True) for name in ("one", "two"))
    for name, value in first["average"].items():
        torch.testing.assert_close(value, second["average"][name], rtol=1e-3, atol=1e-4)
