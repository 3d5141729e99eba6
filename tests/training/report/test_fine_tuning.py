import copy
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch

from training.data.covid_ct import CovidCt
from training.errors import TrainingError
from training.report.batches import Batch
from training.report.fine_tuning import EarlyStopping, FineTuning, predict_logits
from training.report.network import SliceNetwork, load_imagenet
from training.report_recipe import ReportRecipe
from training.run.atomic_write import write_atomically
from training.run.machine import Machine
from training.run.record import EpochRecord


@pytest.fixture
def network(thin: None, recipe: ReportRecipe, thin_weights: Path) -> SliceNetwork:
    torch.manual_seed(0)
    network = SliceNetwork(recipe.architecture)
    load_imagenet(network, recipe.architecture, thin_weights)
    return network


def figures(history: list[EpochRecord]) -> list[tuple[float | None, ...]]:
    """The history without its wall times."""
    return [(r.epoch, r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy, r.val_auc) for r in history]


def test_a_run_killed_in_the_middle_of_an_epoch_ends_as_one_that_was_not(
    network: SliceNetwork, data: CovidCt, recipe: ReportRecipe, machine: Machine, tmp_path: Path
) -> None:
    whole = FineTuning(copy.deepcopy(network), recipe, machine, make(tmp_path / "whole"))
    whole.run(data)

    class KilledError(Exception):
        pass

    class Dying(FineTuning):
        steps = 0

        def train_epoch(self, batches: Iterable[Batch], title: str) -> tuple[float, float]:
            def until_killed() -> Iterator[Batch]:
                for batch in batches:
                    self.steps += 1
                    if self.steps == 4:  # two batches an epoch: within the second
                        raise KilledError
                    yield batch

            return super().train_epoch(until_killed(), title)

    folder = make(tmp_path / "killed")
    with pytest.raises(KilledError):
        Dying(copy.deepcopy(network), recipe, machine, folder).run(data)
    resumed = FineTuning(copy.deepcopy(network), recipe, machine, folder)
    assert resumed.resume()
    assert [record.epoch for record in resumed.history] == [0, 1]
    resumed.run(data)

    assert len(whole.history) == 7
    assert figures(resumed.history) == figures(whole.history)
    for name, value in whole._network.state_dict().items():
        torch.testing.assert_close(resumed._network.state_dict()[name], value, rtol=0, atol=0)


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_checkpoints_are_rare_where_epochs_are_short_and_the_last_one_is_written(
    network: SliceNetwork,
    data: CovidCt,
    recipe: ReportRecipe,
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []

    def record(path: Path, write: object) -> None:
        written.append(path.name)
        write_atomically(path, write)  # type: ignore[arg-type]

    monkeypatch.setattr("training.report.fine_tuning.write_atomically", record)
    two = recipe.model_copy(update={"epochs": 2})
    FineTuning(network, two, machine, tmp_path, checkpoint_seconds=3600).run(data)
    assert written.count("last.pt") == 1
    again = FineTuning(network, two, machine, tmp_path)
    assert again.resume()
    assert [record.epoch for record in again.history] == [0, 1, 2]
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 4


def test_a_finished_run_trains_no_further(
    network: SliceNetwork, data: CovidCt, recipe: ReportRecipe, machine: Machine, tmp_path: Path
) -> None:
    FineTuning(network, recipe.model_copy(update={"epochs": 1}), machine, tmp_path).run(data)
    again = FineTuning(network, recipe.model_copy(update={"epochs": 1}), machine, tmp_path)
    assert again.resume()
    before = figures(again.history)
    again.run(data)
    assert figures(again.history) == before


def test_training_learns_to_separate_the_classes(
    network: SliceNetwork, data: CovidCt, recipe: ReportRecipe, machine: Machine, tmp_path: Path
) -> None:
    tuning = FineTuning(network, recipe.model_copy(update={"epochs": 12}), machine, tmp_path)
    tuning.run(data)
    losses = [record.train_loss for record in tuning.history if record.train_loss is not None]
    assert losses[-1] < 0.8 * losses[0]
    assert tuning.best.val_auc > 0.9


def test_the_network_ends_with_the_weights_of_the_best_epoch(
    network: SliceNetwork, data: CovidCt, recipe: ReportRecipe, machine: Machine, tmp_path: Path
) -> None:
    tuning = FineTuning(network, recipe, machine, tmp_path)
    tuning.run(data)
    accuracies = [record.val_accuracy for record in tuning.history]
    assert tuning.best.epoch == accuracies.index(max(accuracies))
    logits = predict_logits(network, data.val, machine, recipe.input_size)
    assert (logits.argmax(1) == data.val.labels).float().mean().item() == pytest.approx(max(accuracies))


def test_a_damaged_checkpoint_is_named(
    network: SliceNetwork, recipe: ReportRecipe, machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "last.pt").write_bytes(b"half a checkpoint")
    with pytest.raises(TrainingError, match=r"last\.pt: not a checkpoint of this run.*--fresh"):
        FineTuning(network, recipe, machine, tmp_path).resume()


def test_a_loss_that_is_not_finite_stops_the_run_with_advice(
    network: SliceNetwork, data: CovidCt, recipe: ReportRecipe, machine: Machine, tmp_path: Path
) -> None:
    with torch.no_grad():
        next(network.head.parameters()).fill_(float("inf"))
    with pytest.raises(TrainingError, match=r"epoch 1/6: the loss is not finite; lower --learning-rate"):
        FineTuning(network, recipe, machine, tmp_path).run(data)


def test_early_stopping_waits_for_both_running_averages() -> None:
    stopping = EarlyStopping(ReportRecipe(patience=2, running_average=0.0))
    assert not stopping.update(loss=1.0, accuracy=0.5)
    assert not stopping.update(loss=2.0, accuracy=0.6), "accuracy got better"
    assert not stopping.update(loss=0.9, accuracy=0.4), "loss got better"
    assert not stopping.update(loss=1.0, accuracy=0.5)
    assert stopping.update(loss=1.0, accuracy=0.5)


def test_early_stopping_looks_past_one_bad_epoch() -> None:
    stopping = EarlyStopping(ReportRecipe(patience=1, running_average=0.9))
    assert not stopping.update(loss=1.0, accuracy=0.5)
    assert not stopping.update(loss=0.5, accuracy=0.7)
    assert not stopping.update(loss=0.9, accuracy=0.5), "the average of the loss still falls"
