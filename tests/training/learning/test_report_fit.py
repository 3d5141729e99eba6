import dataclasses
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.support.patients_table import write_patients
from training.data.covid_ct import CovidCt, Split
from training.data.folds import FoldPlan, assign_folds
from training.data.patients import read_patients
from training.errors import TrainingError
from training.learning.features import predict_logits
from training.learning.fit import FitSettings, FittedNetwork, fit, pretrained_network
from training.learning.linear_probe import fit_probe
from training.recipe import Recipe
from training.run.machine import Machine

INPUT_SIZE = 32


@pytest.fixture(scope="module")
def settings(recipe: Recipe, machine: Machine, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> FitSettings:
    return FitSettings(recipe.override(epochs=1), machine, weights, tmp_path_factory.mktemp("settings") / "run")


@pytest.fixture(scope="module")
def fitted(settings: FitSettings, data: CovidCt) -> FittedNetwork:
    return fit(settings, data)


def test_the_same_again_trains_nothing_and_ends_with_the_same_network(
    settings: FitSettings, fitted: FittedNetwork, data: CovidCt
) -> None:
    again = fit(settings, data)
    assert again.history == fitted.history
    assert again.probe_seconds == fitted.probe_seconds
    answers = [predict_logits(each.network, data.val, settings.machine, INPUT_SIZE) for each in (fitted, again)]
    torch.testing.assert_close(*answers, rtol=0, atol=0)


def test_another_recipe_in_the_same_run_folder_is_refused_and_nothing_is_lost(
    settings: FitSettings, fitted: FittedNetwork, data: CovidCt
) -> None:
    other = dataclasses.replace(settings, recipe=settings.recipe.override(learning_rate=0.5))
    with pytest.raises(TrainingError, match=r"this run has fine_tuning\.learning_rate = 3e-05, not 0.5; .*--fresh"):
        fit(other, data)
    assert (settings.run_folder / "last.pt").exists()


def test_other_data_in_the_same_run_folder_are_refused(
    settings: FitSettings, fitted: FittedNetwork, data: CovidCt
) -> None:
    fewer = data._replace(train=Split("train", data.train.slices[1:]))
    with pytest.raises(TrainingError, match=r"this run has sha256 of train data = \w{64}, not \w{64}"):
        fit(settings, fewer)


def test_other_weights_in_the_same_run_folder_are_refused(
    settings: FitSettings, fitted: FittedNetwork, data: CovidCt
) -> None:
    other = dataclasses.replace(settings, weights=Path("other.pth"))
    with pytest.raises(TrainingError, match=r"this run has weights = .*vgg19_bn\.pth, not other\.pth"):
        fit(other, data)


def test_a_network_that_did_not_see_validation_is_judged_by_its_own_answers_to_it(
    settings: FitSettings, fitted: FittedNetwork, data: CovidCt
) -> None:
    reference = fitted.reference
    assert (reference.name, reference.split) == ("val", data.val)
    own = predict_logits(fitted.network, data.val, settings.machine, INPUT_SIZE)
    torch.testing.assert_close(reference.logits, own, rtol=0, atol=0)


def test_patients_are_nothing_to_a_run_that_is_fitted_to_train_alone(
    settings: FitSettings, fitted: FittedNetwork, data: CovidCt
) -> None:
    again = fit(dataclasses.replace(settings, patients=Path("nowhere.csv")), data)
    assert again.history == fitted.history


@pytest.fixture(scope="module")
def refitting(
    refit: Recipe, machine: Machine, weights: Path, patients: Path, tmp_path_factory: pytest.TempPathFactory
) -> FitSettings:
    return FitSettings(refit, machine, weights, tmp_path_factory.mktemp("refitting") / "run", patients)


@pytest.fixture(scope="module")
def refitted(refitting: FitSettings, mislabelled: CovidCt) -> FittedNetwork:
    return fit(refitting, mislabelled)


def test_a_refit_ends_with_the_probe_of_train_and_validation(
    refitting: FitSettings, refitted: FittedNetwork, mislabelled: CovidCt, tmp_path: Path
) -> None:
    on_train = dataclasses.replace(refitting, recipe=refitting.recipe.override(fit_on="train"))
    whole, train = (
        fit(dataclasses.replace(on_train, run_folder=tmp_path / name), mislabelled._replace(train=split)).network.head
        for name, split in (("whole", mislabelled.train_and_val()), ("train", mislabelled.train))
    )
    head = refitted.network.head.state_dict()
    torch.testing.assert_close(head, whole.state_dict())
    assert not torch.allclose(head["linear.weight"], train.state_dict()["linear.weight"])


def test_every_slice_of_train_and_validation_is_answered_by_a_probe_that_saw_no_slice_of_its_patient(
    refitting: FitSettings, mislabelled: CovidCt, patients: Path, tmp_path: Path
) -> None:
    # the pooled head has no directions, and a single view no augmentation that goes by a slice's place
    recipe, machine = refitting.recipe.override(head="pooled", views=1), refitting.machine
    refitting = dataclasses.replace(refitting, recipe=recipe, run_folder=tmp_path)
    reference, split = fit(refitting, mislabelled).reference, mislabelled.train_and_val()
    assert (reference.name, reference.split.slices) == ("out-of-fold", split.slices)
    groups = read_patients(patients, split)
    folds = assign_folds(split, FoldPlan(groups, repeats=1))[0]
    network, _ = pretrained_network(refitting)
    for fold in range(5):
        held_out = folds == fold
        inside, outside = (
            {g for g, out in zip(groups, held_out, strict=True) if out == side} for side in (True, False)
        )
        assert not inside & outside
        fit_probe(network, split.where(~held_out), recipe, machine)
        expected = predict_logits(network, split.where(held_out), machine, INPUT_SIZE)
        torch.testing.assert_close(reference.logits[held_out], expected, rtol=1e-3, atol=1e-4)


def test_without_patients_validation_alone_is_out_of_fold_and_the_probe_of_train_answers_it(
    refitting: FitSettings, mislabelled: CovidCt, tmp_path: Path
) -> None:
    recipe = refitting.recipe.override(head="pooled")
    refitting = dataclasses.replace(refitting, recipe=recipe, patients=None, run_folder=tmp_path / "refit")
    on_train = dataclasses.replace(refitting, recipe=recipe.override(fit_on="train"), run_folder=tmp_path / "train")
    refitted, alone = fit(refitting, mislabelled), fit(on_train, mislabelled)
    assert (refitted.reference.name, refitted.reference.split.slices) == ("out-of-fold", mislabelled.val.slices)
    torch.testing.assert_close(refitted.reference.logits, alone.reference.logits, rtol=1e-3, atol=1e-4)
    own = predict_logits(refitted.network, mislabelled.val, refitting.machine, INPUT_SIZE)
    assert not torch.allclose(own, refitted.reference.logits, atol=1e-3), "the network itself has seen validation"


def test_a_refit_is_judged_by_its_out_of_fold_answers(refitting: FitSettings, refitted: FittedNetwork) -> None:
    reference = refitted.reference
    labels, margins = reference.split.labels, reference.logits.diff(dim=1)[:, 0]
    (record,) = refitted.history
    assert record.val_auc == pytest.approx(roc_auc_score(labels, margins))
    assert record.val_accuracy == pytest.approx(((margins > 0) == (labels == 1)).float().mean().item())
    own = predict_logits(refitted.network, reference.split, refitting.machine, INPUT_SIZE)
    assert record.val_auc < roc_auc_score(labels, own[:, 1] - own[:, 0]) - 0.05, "the network itself has seen them all"


def test_a_resumed_refit_trains_nothing_and_has_the_same_reference(
    refitting: FitSettings,
    refitted: FittedNetwork,
    mislabelled: CovidCt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = Mock()
    monkeypatch.setattr("training.learning.fit.fit_probe", trained)
    again = fit(refitting, mislabelled)
    trained.assert_not_called()
    assert again.reference.name == refitted.reference.name
    assert again.reference.split == refitted.reference.split
    torch.testing.assert_close(again.reference.logits, refitted.reference.logits, rtol=0, atol=0)
    assert again.history == refitted.history
    assert again.probe_seconds == refitted.probe_seconds
    torch.testing.assert_close(again.network.state_dict(), refitted.network.state_dict(), rtol=0, atol=0)


def test_a_refit_uses_no_slice_of_test(refitting: FitSettings, mislabelled: CovidCt, tmp_path: Path) -> None:
    without = mislabelled._replace(test=Split("test", ()))
    own, elsewhere = (
        fit(dataclasses.replace(refitting, run_folder=tmp_path / name), data)
        for name, data in (("own", mislabelled), ("elsewhere", without))
    )
    torch.testing.assert_close(own.network.state_dict(), elsewhere.network.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(own.reference.logits, elsewhere.reference.logits, rtol=0, atol=0)


def test_other_patients_in_the_run_folder_of_a_refit_are_refused(
    refitting: FitSettings, refitted: FittedNetwork, mislabelled: CovidCt, tmp_path: Path
) -> None:
    assert refitting.patients is not None
    other, reordered = tmp_path / "other.csv", tmp_path / "reordered.csv"
    rows = refitting.patients.read_text().splitlines()
    other.write_text("\n".join([*rows[:-1], rows[-1] + "-another"]))
    reordered.write_text("\n".join([rows[0], *reversed(rows[1:])]))
    for patients in (other, None):
        with pytest.raises(TrainingError, match=r"this run has sha256 of patients = .*--fresh"):
            fit(dataclasses.replace(refitting, patients=patients), mislabelled)
    fit(dataclasses.replace(refitting, patients=reordered), mislabelled)


def test_too_few_patients_for_the_folds_of_a_refit_are_reported_with_the_remedy(
    refitting: FitSettings, mislabelled: CovidCt, tmp_path: Path
) -> None:
    table = tmp_path / "patients.csv"
    named = [each.path.removeprefix("CT_").split("/") for each in mislabelled.train_and_val().slices]
    rows = [f"{name},{label},train,one" for label, name in named]
    table.write_text("\n".join(["file,class,split,patient", *rows]))
    with pytest.raises(TrainingError, match=r"patients\.csv: too few patients for 5 folds.*--fit-on train"):
        fit(dataclasses.replace(refitting, patients=table, run_folder=tmp_path / "run"), mislabelled)


def test_a_refit_is_answered_by_probes_that_saw_no_slice_of_the_paper(
    refitting: FitSettings, data: CovidCt, tmp_path: Path
) -> None:
    data = data._replace(train=_of_papers(data.train, 0), val=_of_papers(data.val, 4))
    split = data.train_and_val()
    recipe, table = refitting.recipe.override(group_by="paper"), write_patients(tmp_path / "patients.csv", split)
    fit(dataclasses.replace(refitting, recipe=recipe, patients=table, run_folder=tmp_path / "run"), data)
    folds = torch.load(tmp_path / "run" / "probe.pt", weights_only=True)["folds"]
    seen = {(each.path.split("-")[0], fold) for each, fold in zip(split.slices, folds.tolist(), strict=True)}
    papers = sorted(paper for paper, _ in seen if paper.startswith("CT_COVID/2020"))
    assert papers == [f"CT_COVID/2020.03.0{i}.2003" for i in range(6)]


def _of_papers(split: Split, first: int) -> Split:
    """The split with the two COVID slices of each patient named after a preprint, as COVID-CT names them."""
    slices = (
        dataclasses.replace(each, path=f"CT_COVID/2020.03.0{first + i // 2}.2003-{i}.png") if each.label else each
        for i, each in enumerate(split.slices)
    )
    return Split(split.name, tuple(slices))


def test_too_few_papers_for_the_folds_of_a_refit_are_reported_with_the_remedy(
    refitting: FitSettings, mislabelled: CovidCt, tmp_path: Path
) -> None:
    recipe = refitting.recipe.override(group_by="paper")
    with pytest.raises(TrainingError, match=r"too few papers for 5 folds.*--group-by patient or --fit-on train"):
        fit(dataclasses.replace(refitting, recipe=recipe, run_folder=tmp_path / "run"), mislabelled)


def test_a_slice_of_a_refit_without_a_patient_is_named(
    refitting: FitSettings, mislabelled: CovidCt, tmp_path: Path
) -> None:
    assert refitting.patients is not None
    table = tmp_path / "patients.csv"
    lines = [line for line in refitting.patients.read_text().splitlines() if "noncovid-val%3.png" not in line]
    table.write_text("\n".join(lines))
    with pytest.raises(TrainingError, match=r"no patient for CT_NonCOVID/noncovid-val%3\.png \(1 such images\)"):
        fit(dataclasses.replace(refitting, patients=table, run_folder=tmp_path / "run"), mislabelled)
