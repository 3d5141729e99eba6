import copy
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch

from training.data.batches import Batch
from training.data.covid_ct import CovidCt
from training.errors import TrainingError
from training.learning.fine_tuning import EarlyStopping, FineTuning, make_optimiser, predict_logits
from training.network.freezing import set_trainable, set_training_mode
from training.network.slice_network import SliceNetwork
from training.network.weights import load_imagenet
from training.recipe import RECIPES, Recipe
from training.run.machine import Machine
from training.run.record import EpochRecord


@pytest.fixture
def network(recipe: Recipe, weights: Path) -> SliceNetwork:
    torch.manual_seed(0)
    network = SliceNetwork(recipe)
    load_imagenet(network, recipe, weights)
    return network


def figures(history: list[EpochRecord]) -> list[tuple[float | None, ...]]:
    """The history without its wall times."""
    return [(r.epoch, r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy, r.val_auc) for r in history]


def test_a_run_killed_in_the_middle_of_an_epoch_ends_as_one_that_was_not(
    network: SliceNetwork, data: CovidCt, recipe: Recipe, machine: Machine, tmp_path: Path
) -> None:
    recipe = recipe.override(freeze_batch_norm=False, learning_rate=1e-3)
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

    assert len(whole.history) == 4
    assert figures(resumed.history) == figures(whole.history)
    for name, value in whole._network.state_dict().items():
        torch.testing.assert_close(resumed._network.state_dict()[name], value, rtol=0, atol=0)


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_finished_run_trains_no_further(
    network: SliceNetwork, data: CovidCt, recipe: Recipe, machine: Machine, tmp_path: Path
) -> None:
    FineTuning(network, recipe.override(epochs=1), machine, tmp_path).run(data)
    again = FineTuning(network, recipe.override(epochs=1), machine, tmp_path)
    assert again.resume()
    before = figures(again.history)
    again.run(data)
    assert figures(again.history) == before


def test_figures_that_a_run_begins_with_take_the_place_of_validation(
    network: SliceNetwork, data: CovidCt, recipe: Recipe, machine: Machine, tmp_path: Path
) -> None:
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0], [0.0, 3.0]])
    tuning = FineTuning(network, recipe.override(epochs=0), machine, tmp_path)
    tuning.begin_with(logits, torch.tensor([0, 0, 1, 1]))
    tuning.run(data)
    (record,) = tuning.history
    assert (record.epoch, record.train_loss, record.val_accuracy, record.val_auc) == (0, None, 0.75, 1.0)
    assert record.val_loss == pytest.approx((math.log1p(math.e) + sum(math.log1p(math.exp(-k)) for k in (1, 2, 3))) / 4)
    torch.testing.assert_close(torch.stack(tuning.val_logits), logits[None], rtol=0, atol=0)


def test_a_resumed_run_keeps_the_figures_that_it_began_with(
    network: SliceNetwork, data: CovidCt, recipe: Recipe, machine: Machine, tmp_path: Path
) -> None:
    logits, labels = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 0])
    first = FineTuning(network, recipe.override(epochs=0), machine, tmp_path)
    first.begin_with(logits, labels)
    written = (tmp_path / "last.pt").stat().st_mtime_ns
    resumed = FineTuning(network, recipe.override(epochs=0), machine, tmp_path)
    assert resumed.resume()
    resumed.begin_with(-logits, labels)
    resumed.run(data)
    assert resumed.history == first.history
    torch.testing.assert_close(torch.stack(resumed.val_logits), logits[None], rtol=0, atol=0)
    assert (tmp_path / "last.pt").stat().st_mtime_ns == written


def test_training_learns_what_tells_the_classes_apart(
    network: SliceNetwork, data: CovidCt, recipe: Recipe, machine: Machine, tmp_path: Path
) -> None:
    tuning = FineTuning(network, recipe.override(epochs=6, learning_rate=1e-3), machine, tmp_path)
    tuning.run(data)
    losses = [record.train_loss for record in tuning.history if record.train_loss is not None]
    assert losses[-1] < 0.7 * losses[0]
    assert tuning.best.val_auc > 0.9


def test_the_network_ends_with_the_weights_of_the_best_epoch(
    network: SliceNetwork, data: CovidCt, recipe: Recipe, machine: Machine, tmp_path: Path
) -> None:
    recipe = recipe.override(select_by="accuracy", learning_rate=1e-3)
    tuning = FineTuning(network, recipe, machine, tmp_path)
    tuning.run(data)
    accuracies = [record.val_accuracy for record in tuning.history]
    assert tuning.best.epoch == accuracies.index(max(accuracies))
    logits = predict_logits(network, data.val, recipe, machine)
    assert (logits.argmax(1) == data.val.labels).float().mean().item() == pytest.approx(max(accuracies))


def test_a_damaged_checkpoint_is_named(network: SliceNetwork, recipe: Recipe, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"half a checkpoint")
    with pytest.raises(TrainingError, match=r"last\.pt: not a checkpoint of this run.*--fresh"):
        FineTuning(network, recipe, machine, tmp_path).resume()


def test_a_loss_that_is_not_finite_stops_the_run_with_advice(
    network: SliceNetwork, data: CovidCt, recipe: Recipe, machine: Machine, tmp_path: Path
) -> None:
    with torch.no_grad():
        next(network.head.parameters()).fill_(float("inf"))
    with pytest.raises(TrainingError, match=r"epoch 1/3: the loss is not finite; lower --learning-rate"):
        FineTuning(network, recipe, machine, tmp_path).run(data)


def test_early_stopping_waits_for_both_running_averages() -> None:
    stopping = EarlyStopping(patience=2, running_average=0.0)
    assert not stopping.update(loss=1.0, accuracy=0.5)
    assert not stopping.update(loss=2.0, accuracy=0.6), "accuracy got better"
    assert not stopping.update(loss=0.9, accuracy=0.4), "loss got better"
    assert not stopping.update(loss=1.0, accuracy=0.5)
    assert stopping.update(loss=1.0, accuracy=0.5)


def test_early_stopping_looks_past_one_bad_epoch() -> None:
    stopping = EarlyStopping(patience=1, running_average=0.9)
    assert not stopping.update(loss=1.0, accuracy=0.5)
    assert not stopping.update(loss=0.5, accuracy=0.7)
    assert not stopping.update(loss=0.9, accuracy=0.5), "the average of the loss still falls"


def test_layers_learn_slower_the_deeper_they_lie(network: SliceNetwork, recipe: Recipe) -> None:
    optimiser = make_optimiser(network, recipe.override(learning_rate=1.0, layer_decay=0.5))
    rate = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    convolutions = [layer for layer in network.features if isinstance(layer, torch.nn.Conv2d)]
    assert all(rate[id(p)] == 1.0 for p in network.head.parameters())
    assert [rate[id(layer.weight)] for layer in reversed(convolutions)] == [0.5**k for k in range(1, 15)]  # 1_1 to 5_2


@pytest.mark.parametrize(
    ("trainable", "convolutions"), [("all", 14), ("last_blocks", 6), ("last_block", 2), ("head", 0)]
)
def test_only_what_the_recipe_trains_gets_gradients(
    network: SliceNetwork, recipe: Recipe, trainable: str, convolutions: int
) -> None:
    recipe = recipe.override(trainable=trainable)
    make_optimiser(network, recipe)
    trained = [m for m in network.features if isinstance(m, torch.nn.Conv2d) and m.weight.requires_grad]
    assert len(trained) == convolutions
    assert all(p.requires_grad for p in network.head.parameters())
    network(torch.zeros(2, 1, 32, 32, dtype=torch.uint8)).sum().backward()
    assert sum(m.weight.grad is not None for m in network.features if isinstance(m, torch.nn.Conv2d)) == convolutions


def test_frozen_batch_norms_keep_their_statistics_and_others_move(network: SliceNetwork) -> None:
    def statistics() -> torch.Tensor:
        mean: torch.Tensor = network.state_dict()["features.1.running_mean"]
        return mean.clone()

    def statistics_move(recipe: Recipe) -> bool:
        before = statistics()
        set_training_mode(network, recipe)
        network(torch.randint(0, 255, (2, 1, 32, 32), dtype=torch.uint8))
        return not torch.equal(before, statistics())

    assert not statistics_move(RECIPES["best"])
    assert statistics_move(RECIPES["seed"])


def test_the_last_blocks_of_a_head_that_sees_none_of_them_are_nothing(recipe: Recipe) -> None:
    recipe = recipe.override(layers="3_4", trainable="last_blocks")
    network = SliceNetwork(recipe)
    set_trainable(network, recipe)
    assert not any(p.requires_grad for p in network.features.parameters())
