import dataclasses
from pathlib import Path

import pytest
import torch

from training.config import Recipe
from training.data import CovidCt, Split
from training.engine import predict_logits
from training.errors import TrainingError
from training.fitting import Fitted, Fitting, fit
from training.machine import Machine


@pytest.fixture(scope="module")
def fitting(recipe: Recipe, machine: Machine, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitting:
    return Fitting(recipe.override(epochs=1), machine, weights, tmp_path_factory.mktemp("fitting") / "run")


@pytest.fixture(scope="module")
def fitted(fitting: Fitting, data: CovidCt) -> Fitted:
    return fit(fitting, data)


def test_the_same_again_trains_nothing_and_ends_with_the_same_network(
    fitting: Fitting, fitted: Fitted, data: CovidCt
) -> None:
    again = fit(fitting, data)
    assert again.tuning.history == fitted.tuning.history
    assert again.probe_seconds == fitted.probe_seconds
    answers = [predict_logits(each.network, data.val, fitting.recipe, fitting.machine) for each in (fitted, again)]
    torch.testing.assert_close(*answers, rtol=0, atol=0)


def test_another_recipe_in_the_same_run_folder_is_refused_and_nothing_is_lost(
    fitting: Fitting, fitted: Fitted, data: CovidCt
) -> None:
    other = dataclasses.replace(fitting, recipe=fitting.recipe.override(learning_rate=0.5))
    with pytest.raises(TrainingError, match=r"this run has learning_rate = 3e-05, not 0.5; .*--fresh"):
        fit(other, data)
    assert (fitting.run_folder / "last.pt").exists()


def test_other_data_in_the_same_run_folder_are_refused(fitting: Fitting, fitted: Fitted, data: CovidCt) -> None:
    fewer = data._replace(train=Split("train", data.train.scans[1:]))
    with pytest.raises(TrainingError, match=r"this run has sha256 of train data = \w{64}, not \w{64}"):
        fit(fitting, fewer)


def test_other_weights_in_the_same_run_folder_are_refused(fitting: Fitting, fitted: Fitted, data: CovidCt) -> None:
    other = dataclasses.replace(fitting, weights=Path("other.pth"))
    with pytest.raises(TrainingError, match=r"this run has weights = .*vgg19_bn\.pth, not other\.pth"):
        fit(other, data)
