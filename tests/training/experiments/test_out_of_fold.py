from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest
import torch

from training.data.batches import Batch
from training.data.covid_ct import CovidCt, Split
from training.data.folds import FoldPlan
from training.errors import TrainingError
from training.experiments.out_of_fold import out_of_fold_logits
from training.learning.features import probe_features
from training.learning.fine_tuning import FineTuning
from training.learning.fit import FitSettings, fit
from training.learning.linear_probe import solve
from training.network.heads import PooledHead
from training.recipe import Recipe
from training.run.machine import Machine


@pytest.fixture
def settings(recipe: Recipe, machine: Machine, weights: Path, tmp_path: Path) -> FitSettings:
    return FitSettings(recipe.override(epochs=1, trainable="last_block"), machine, weights, tmp_path / "folds")


def test_a_probe_answers_as_one_that_was_fitted_to_the_other_folds(
    settings: FitSettings, split: Split, plan: FoldPlan, data: CovidCt
) -> None:
    # the pooled head: it has no directions, which those of all slices would be here and those of one fold there
    settings = replace(settings, recipe=settings.recipe.override(fine_tuning="false", views=1, head="pooled"))
    answers = out_of_fold_logits(settings, split, plan)
    held_out = answers.folds[0] == 0
    network = fit(settings, data._replace(train=split.where(~held_out))).network
    pooled, _ = probe_features(network, split, settings.recipe, settings.machine)
    with torch.inference_mode():
        expected = cast(PooledHead, network.head).linear(pooled[held_out])
    torch.testing.assert_close(answers.logits[0, 0, held_out], expected, rtol=1e-3, atol=1e-4)
    assert answers.logits.shape == (1, 1, 24, 2)
    assert answers.variant is None


def test_features_are_computed_once_for_all_folds_and_repeats(
    settings: FitSettings, split: Split, plan: FoldPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = Mock(wraps=probe_features)
    fitted = Mock(wraps=solve)
    monkeypatch.setattr("training.experiments.out_of_fold.probe_features", computed)
    monkeypatch.setattr("training.learning.linear_probe.solve", fitted)
    settings = replace(settings, recipe=settings.recipe.override(fine_tuning="false"))
    answers = out_of_fold_logits(settings, split, replace(plan, repeats=2), variant=split)
    computed.assert_called_once()
    assert [len(call.args[1]) for call in fitted.call_args_list] == [24, 24, 24, 24], "two views of 12 slices"
    assert answers.variant is not None
    torch.testing.assert_close(answers.variant, answers.logits[:, 0], rtol=1e-4, atol=1e-4)


def test_fine_tuning_answers_after_every_epoch_and_keeps_no_checkpoints(
    settings: FitSettings, split: Split, plan: FoldPlan
) -> None:
    settings = replace(settings, recipe=settings.recipe.override(epochs=3, patience=1, learning_rate=1e-3))
    answers = out_of_fold_logits(settings, split, plan)
    assert answers.logits.shape == (1, 4, 24, 2)
    assert all((each != 0).all() for each in answers.logits.flatten(0, 1))
    assert not torch.equal(answers.logits[0, 1], answers.logits[0, 3])
    kept = sorted(path.name for path in settings.run_folder.rglob("*") if path.is_file())
    assert kept == ["out-of-fold.pt", "out-of-fold.pt", "run.json", "run.json"]


def test_interrupted_folds_go_on_and_end_as_if_they_had_not_been(
    settings: FitSettings, split: Split, plan: FoldPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings, recipe=settings.recipe.override(epochs=2))
    whole = out_of_fold_logits(replace(settings, run_folder=tmp_path / "whole"), split, plan)
    trained: list[str] = []
    train_epoch = FineTuning.train_epoch

    def dying(self: FineTuning, batches: Iterable[Batch], title: str) -> tuple[float, float]:
        trained.append(title)
        if len(trained) == 4:  # the last epoch of the last fold
            raise KeyboardInterrupt
        return train_epoch(self, batches, title)

    monkeypatch.setattr(FineTuning, "train_epoch", dying)
    with pytest.raises(KeyboardInterrupt):
        out_of_fold_logits(settings, split, plan)
    resumed = out_of_fold_logits(settings, split, plan)
    assert trained == ["epoch 1/2", "epoch 2/2", "epoch 1/2", "epoch 2/2", "epoch 2/2"]
    torch.testing.assert_close(resumed.logits, whole.logits, rtol=0, atol=0)


def test_folds_of_another_recipe_are_refused(settings: FitSettings, split: Split, plan: FoldPlan) -> None:
    out_of_fold_logits(settings, split, plan)
    other = replace(settings, recipe=settings.recipe.override(learning_rate=0.5))
    with pytest.raises(
        TrainingError, match=r"repeat-0-fold-0/run\.json: this run has fine_tuning\.learning_rate = 3e-05, not 0\.5"
    ):
        out_of_fold_logits(other, split, plan)
