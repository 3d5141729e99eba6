import dataclasses
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from training.data.covid_ct import CovidCt
from training.evaluation.calibration import fit_temperature
from training.evaluation.thresholds import choose_threshold
from training.experiments.trial import run_trial
from training.learning.features import FeatureCache, pooled_features
from training.learning.fit import FitSettings, fit
from training.recipe import Recipe
from training.release.report import Report
from training.run.machine import Machine


@pytest.fixture
def settings(recipe: Recipe, machine: Machine, weights: Path, tmp_path: Path) -> FitSettings:
    return FitSettings(recipe.override(fine_tuning="false"), machine, weights, tmp_path / "run")


def test_a_trial_has_the_figures_of_the_model_that_the_job_would_ship(
    settings: FitSettings, probe_report: Report, data: CovidCt
) -> None:
    trial, report = run_trial(settings, data), probe_report
    assert trial.threshold.value == pytest.approx(report.threshold.value, abs=2e-3), "shipped weights are rounded"
    assert trial.threshold.rule == report.threshold.rule
    assert trial.reference == "val"
    for name in ("val", "test"):
        assert trial.splits[name].figures == report.splits[name].figures
    assert trial.splits["reencoded"].figures["auc"] == report.audit.variants["reencoded"].figures["auc"]
    assert len(trial.test_scores) == len(data.test.slices)
    assert trial.config == report.config


def test_a_trial_of_a_refit_records_that_its_threshold_is_of_out_of_fold_answers(
    settings: FitSettings, refit: Recipe, patients: Path, mislabelled: CovidCt, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, recipe=refit, patients=patients)
    trial = run_trial(settings, mislabelled)
    assert trial.reference == "out-of-fold"
    assert set(trial.splits) == {"out-of-fold", "test", "reencoded"}
    assert trial.splits["out-of-fold"].count == 24
    reference = fit(settings, mislabelled).reference
    temperature = fit_temperature(reference.logits, reference.split.labels)
    probabilities = torch.softmax(reference.logits / temperature, 1)[:, 1]
    expected = choose_threshold(probabilities, reference.split.labels, "youden", "out-of-fold")
    assert trial.threshold.rule == expected.rule
    assert trial.threshold.value == pytest.approx(expected.value)


def test_a_trial_that_has_ended_is_read_and_one_of_another_recipe_is_not(settings: FitSettings, data: CovidCt) -> None:
    first = run_trial(settings, data)
    record = settings.run_folder / "trial.json"
    written = record.stat().st_mtime_ns
    assert run_trial(settings, data) == first
    assert record.stat().st_mtime_ns == written
    elsewhere = dataclasses.replace(
        settings, recipe=settings.recipe.override(penalty=0.5), run_folder=settings.run_folder.with_name("other")
    )
    assert run_trial(elsewhere, data).config == elsewhere.recipe.as_json()


def test_seeds_that_share_a_cache_compute_the_features_of_plain_slices_once(
    settings: FitSettings, data: CovidCt, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = Mock(wraps=pooled_features)
    monkeypatch.setattr("training.learning.features.pooled_features", computed)
    recipe, folder = settings.recipe.override(seed=1), settings.run_folder
    run_trial(settings, data)
    shared = run_trial(dataclasses.replace(settings, recipe=recipe, run_folder=folder.with_name("shared")), data)
    titles = [call.args[-1] for call in computed.call_args_list]
    plain, crops, test = "features of slices", "features of slices, view 1", "evaluating test"
    assert titles == [plain, crops, test, test, crops], "test once as it is and once re-encoded"
    alone = dataclasses.replace(settings, recipe=recipe, run_folder=folder.with_name("alone"), cache=FeatureCache())
    assert shared.test_scores == pytest.approx(run_trial(alone, data).test_scores, abs=1e-6)


def test_a_record_of_another_version_is_made_anew(settings: FitSettings, data: CovidCt) -> None:
    first = run_trial(settings, data)
    record = settings.run_folder / "trial.json"
    record.write_text('{"of": "another version"}')
    assert run_trial(settings, data).splits == first.splits
    assert record.read_text() != '{"of": "another version"}'
