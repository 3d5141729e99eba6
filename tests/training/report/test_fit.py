import dataclasses
from pathlib import Path

import pytest
import torch

from training.data.covid_ct import CovidCt, Split
from training.errors import TrainingError
from training.report.fine_tuning import predict_logits
from training.report.fit import FitSettings, fit
from training.report.record import ReportRunRecord
from training.report.run import ReportJob


@pytest.fixture
def settings(job: ReportJob, report: ReportRunRecord) -> FitSettings:
    """Of a run that has ended."""
    return job.settings


@pytest.mark.usefixtures("thin")
def test_the_same_again_trains_nothing_and_ends_with_the_same_network(
    settings: FitSettings, report: ReportRunRecord, data: CovidCt
) -> None:
    first, second = fit(settings, data), fit(settings, data)
    assert tuple(first.history) == tuple(second.history) == report.history
    assert first.kept_epoch == report.kept_epoch
    logits = [predict_logits(fitted.network, data.val, settings.machine, 32) for fitted in (first, second)]
    torch.testing.assert_close(*logits, rtol=0, atol=0)


def test_another_recipe_in_the_same_run_folder_is_refused_and_nothing_is_lost(
    settings: FitSettings, data: CovidCt
) -> None:
    other = dataclasses.replace(settings, recipe=settings.recipe.model_copy(update={"learning_rate": 0.5}))
    with pytest.raises(TrainingError, match=r"this run has learning_rate = 0\.01, not 0.5; .*--fresh"):
        fit(other, data)
    assert (settings.run_folder / "last.pt").exists()


def test_other_data_in_the_same_run_folder_are_refused(settings: FitSettings, data: CovidCt) -> None:
    fewer = data._replace(train=Split("train", data.train.slices[1:]))
    with pytest.raises(TrainingError, match=r"this run has sha256 of train data = \w{64}, not \w{64}"):
        fit(settings, fewer)


def test_weights_are_known_by_their_content_and_not_by_their_name(
    settings: FitSettings, data: CovidCt, tmp_path: Path
) -> None:
    assert settings.weights is not None
    other = tmp_path / "other.pth"
    other.write_bytes(settings.weights.read_bytes() + b" ")
    with pytest.raises(TrainingError, match=r"this run has sha256 of weights = \w{64}, not \w{64}"):
        fit(dataclasses.replace(settings, weights=other), data)
    with pytest.raises(TrainingError, match=r"gone\.pth: can't read the file: No such file"):
        fit(dataclasses.replace(settings, weights=tmp_path / "gone.pth"), data)
