import copy
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from training.data.covid_ct import CovidCt
from training.errors import TrainingError
from training.report.batches import Batch
from training.report.fine_tuning import EpochRecord, FineTuning, is_over, predict_logits
from training.report.network import SliceNetwork, load_imagenet
from training.report_recipe import ReportRecipe
from training.run.machine import Machine


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
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = FineTuning(copy.deepcopy(network), recipe, machine, tmp_path / "whole")
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

    with pytest.raises(KilledError):
        Dying(copy.deepcopy(network), recipe, machine, tmp_path / "killed").run(data)
    resumed = FineTuning(copy.deepcopy(network), recipe, machine, tmp_path / "killed")
    assert resumed.resume()
    assert [record.epoch for record in resumed.history] == [0, 1]
    resumed.run(data)
    assert len(whole.history) == 7
    assert figures(resumed.history) == figures(whole.history)
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], value, rtol=0, atol=0)


def test_a_finished_run_has_its_last_checkpoint_and_trains_no_further(
    network: SliceNetwork, data: CovidCt, recipe: ReportRecipe, machine: Machine, tmp_path: Path
) -> None:
    two = recipe.model_copy(update={"epochs": 2})
    FineTuning(network, two, machine, tmp_path, checkpoint_seconds=3600).run(data)
    rows = (tmp_path / "history.csv").read_text().splitlines()
    assert len(rows) == 4
    assert rows[1].startswith("0,,,"), "the network before fine-tuning has no training figures"
    again = FineTuning(network, two, machine, tmp_path)
    assert again.resume()
    before = figures(again.history)
    again.run(data)
    assert [row[0] for row in before] == [0, 1, 2]
    assert figures(again.history) == before


def test_training_separates_the_classes_and_ends_with_the_weights_of_the_best_epoch(
    network: SliceNetwork, data: CovidCt, recipe: ReportRecipe, machine: Machine, tmp_path: Path
) -> None:
    tuning = FineTuning(network, recipe.model_copy(update={"epochs": 12}), machine, tmp_path)
    tuning.run(data)
    losses = [record.train_loss for record in tuning.history if record.train_loss is not None]
    assert losses[-1] < 0.8 * losses[0]
    assert tuning.best.val_auc > 0.9
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


@pytest.mark.parametrize(
    ("patience", "running_average", "epochs", "ends"),
    [
        (2, 0.0, [(1.0, 0.5), (2.0, 0.6), (0.9, 0.4), (1.0, 0.5)], False),
        (2, 0.0, [(1.0, 0.5), (2.0, 0.6), (0.9, 0.4), (1.0, 0.5), (1.0, 0.5)], True),
        (1, 0.9, [(1.0, 0.5), (0.5, 0.7), (0.9, 0.5)], False),
    ],
    ids=["loss or accuracy got better", "neither did twice", "the average of the loss still falls"],
)
def test_training_stops_when_neither_running_average_improves(
    patience: int, running_average: float, epochs: Sequence[tuple[float, float]], ends: bool
) -> None:
    history = [EpochRecord(i, None, None, loss, accuracy, 0.5, 1.0) for i, (loss, accuracy) in enumerate(epochs)]
    assert is_over(history, ReportRecipe(patience=patience, running_average=running_average)) == ends
    assert is_over(history, ReportRecipe(epochs=len(history) - 1))
