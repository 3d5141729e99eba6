"""Training of the lesion network, also by several processes; tests/soak/test_torchrun.py starts those."""

from pathlib import Path

import pytest
import torch

from tests.support.processes import parallel
from training.data.tables import read_rows
from training.errors import TrainingError
from training.learning.lesion_losses import lesion_losses
from training.learning.lesion_training import LesionTraining, train_lesion_network
from training.lesion_recipe import LesionRecipe
from training.network.lesion_network import LesionNetwork
from training.run import processes
from training.run.machine import Machine
from training.run.processes import Processes
from training.run.seeding import seed_everything


def test_the_samples_of_all_processes_are_those_of_one(tmp_path: Path) -> None:
    slices = parallel.read_slices(tmp_path)
    whole = parallel.samples_of(slices).batch(5)
    for rank in (0, 1):
        places = Processes(rank, 2).places(5)
        for one, other in zip(whole, parallel.samples_of(slices).batch(5, places), strict=True):
            assert torch.equal(one[list(places)], other)


def test_losses_of_parts_add_up_to_those_of_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = parallel.samples_of(parallel.read_slices(tmp_path)).batch(5)
    outputs = torch.randn(5, 2, 24, 32), torch.randn(5), torch.randn(5)
    whole = lesion_losses(outputs, batch)
    weights = (batch.lesion_weight, batch.lung_weight, batch.label_weight)
    totals = torch.stack([weight.sum() for weight in weights])
    monkeypatch.setattr(Processes, "sum", lambda self, values: totals)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(processes, "_current", Processes(rank, 2))
        places = list(Processes(rank, 2).places(5))
        part = type(batch)(*(tensor[places] for tensor in batch))
        first, second, third = (tensor[places] for tensor in outputs)
        parts.append(lesion_losses((first, second, third), part))
    for name, value in whole.items():
        assert parts[0][name] + parts[1][name] == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.usefixtures("thin")
def test_a_lengthened_run_whose_rate_did_not_fall_is_like_one_that_was_never_shorter(tmp_path: Path) -> None:
    for name, lengths in (("at-once", [4]), ("lengthened", [2, 4])):
        for steps in lengths:
            seed_everything(0)
            _train(LesionNetwork(), tmp_path / name, steps)
    one, other = (torch.load(tmp_path / name / "network-000004.pt") for name in ("at-once", "lengthened"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert (tmp_path / "lengthened" / "network-000002.pt").is_file()
    rows = read_rows(tmp_path / "lengthened" / "network-losses.csv", ("step", "seconds"))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds), "of all processes that continued it"


@pytest.mark.usefixtures("thin")
def test_a_finished_run_is_read_from_its_last_snapshot(tmp_path: Path) -> None:
    trained = _train(LesionNetwork(), tmp_path, 2).state_dict()
    (tmp_path / "network.ckpt").unlink()
    again = _train(LesionNetwork(), tmp_path, 2).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in trained.items() if "decoder" in name)
    torch.save({}, tmp_path / "network-000002.pt")
    with pytest.raises(TrainingError, match=r"network-000002\.pt: not a checkpoint of this run"):
        _train(LesionNetwork(), tmp_path, 2)


def test_snapshots_are_kept_at_doublings_and_at_the_end() -> None:
    training = _training(Path("x.ckpt"), 5000)
    assert [step for step in range(1, 5001) if training.has_snapshot(step)] == [500, 1000, 2000, 4000, 5000]


def test_the_rate_rises_is_constant_and_falls_to_zero() -> None:
    training = _training(Path("x.ckpt"), 8, cool_down=4)
    assert [training.rate(step) for step in range(9)] == [0.5, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]


def _training(checkpoint: Path, steps: int, cool_down: int = 0) -> LesionTraining:
    recipe = LesionRecipe(batch_size=2, warm_up_steps=2, cool_down_steps=cool_down, learning_rate=1e-3)
    return LesionTraining(recipe, steps, Machine(torch.device("cpu"), None, 0), checkpoint)


def _train(network: LesionNetwork, folder: Path, steps: int) -> LesionNetwork:
    folder.mkdir(exist_ok=True)
    samples = parallel.samples_of(parallel.read_slices(folder))
    return train_lesion_network(network, samples, _training(folder / "network.ckpt", steps))
