import csv
import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch

from service.model.file import load_model, load_on_cpu, read_manifest, synthetic_slice
from training.data.covid_ct import CovidCt
from training.evaluation.calibration import fit_temperature
from training.evaluation.thresholds import choose_threshold
from training.learning.fine_tuning import predict_logits
from training.learning.fit import Fitting, fit
from training.recipe import Recipe
from training.release.report import Report
from training.release.train import Job, train
from training.run.machine import Machine


@pytest.fixture(scope="module")
def job(recipe: Recipe, machine: Machine, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    root = tmp_path_factory.mktemp("job")
    return Job(Fitting(recipe.override(epochs=1), machine, weights, root / "run"), root / "models", "1.2.3")


@pytest.fixture(scope="module")
def report(job: Job, data: CovidCt) -> Report:
    return train(job, data)


def test_the_sample_of_the_data_is_in_the_run_folder_which_does_not_ship(job: Job, report: Report) -> None:
    assert (job.fitting.run_folder / "sample.png").read_bytes().startswith(b"\x89PNG")


def test_the_models_folder_gets_everything_that_ships(job: Job, report: Report) -> None:
    names = {str(path.relative_to(job.models_folder)) for path in job.models_folder.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.png" for name in ("confusion", "curves", "misclassified", "reliability", "roc")}
    files = {f"covid-ct-vgg19_bn.{precision}.pt" for precision in ("fp16", "int8")}
    assert names == {"metrics.json", "predictions.csv"} | files | figures


@pytest.mark.parametrize(("precision", "most_bytes"), [("fp16", 45_000_000), ("int8", 23_000_000)])
def test_the_manifest_pins_each_file_and_the_service_can_load_it(
    job: Job, report: Report, precision: str, most_bytes: int
) -> None:
    (file,) = [file for file in read_manifest(job.models_folder).files if file.precision == precision]
    data = (job.models_folder / file.name).read_bytes()
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    assert file.bytes == len(data) <= most_bytes
    artifact = load_on_cpu(job.models_folder, file)
    card = artifact.card
    assert (card.name, card.version, card.input_size) == ("covid-ct", "1.2.3", job.fitting.recipe.input_size)
    assert card.precision == precision
    assert card.training_config == job.fitting.recipe.model_dump(mode="json")
    batch = torch.from_numpy(synthetic_slice(card.self_check.seed, card.input_size))[None]
    assert artifact.network(batch)[0].item() == pytest.approx(card.self_check.probability, abs=1e-4)


def test_metrics_json_is_the_report_and_agrees_with_the_card(job: Job, report: Report) -> None:
    written = json.loads((job.models_folder / "metrics.json").read_text())
    assert written == report.model_dump(mode="json")
    card = load_model(job.models_folder / report.files[0].name, torch.device("cpu"), "fp32").card
    assert card.test_metrics == report.splits["test"].figures
    assert (card.threshold, card.temperature) == (report.threshold.value, report.temperature)
    assert card.data == report.data
    assert [row["epoch"] for row in written["history"]] == [0, 1]


def test_the_exported_files_answer_as_the_training_network_does(report: Report) -> None:
    assert report.agreement.rounding < 5e-3
    exact, rounded = (report.agreement.files[file.name] for file in report.files)
    assert exact.largest_difference < 1e-4
    assert (exact.auc_change, exact.decisions_equal, exact.verdicts_equal) == (0.0, 1.0, 1.0)
    assert 0 < rounded.largest_difference < 0.2
    assert rounded.decisions_equal == 1.0


def test_predictions_csv_has_a_row_a_slice_that_leads_to_the_figures(job: Job, data: CovidCt, report: Report) -> None:
    with (job.models_folder / "predictions.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    rows = [row for row in written if row["split"] == "test"]
    assert [row["path"] for row in written if row["split"] == "val"] == [scan.path for scan in data.val.scans]
    assert len(written) == 16
    assert all(float(row["ood_score"]) > 0 for row in written)
    assert [row["path"] for row in rows] == [scan.path for scan in data.test.scans]
    hits = [(float(row["probability"]) >= report.threshold.value) == (row["label"] == "1") for row in rows]
    assert sum(hits) / len(hits) == pytest.approx(report.splits["test"].figures["accuracy"].value)


def test_the_same_command_again_trains_nothing_and_writes_the_same_file(
    job: Job, data: CovidCt, report: Report
) -> None:
    again = train(job, data)
    assert again.files == report.files
    assert again.history == report.history
    assert again.wall_time_seconds.probe == report.wall_time_seconds.probe


def test_the_seed_recipes_head_exports_too(
    data: CovidCt, recipe: Recipe, machine: Machine, weights: Path, tmp_path: Path
) -> None:
    seed = recipe.override(head="classifier", layers="", probe=False, epochs=1, calibrate=False, threshold_rule="half")
    report = train(Job(Fitting(seed, machine, weights, tmp_path / "run"), tmp_path / "models", "0"), data)
    assert report.threshold.value == 0.5
    assert report.temperature == 1.0
    (file,) = report.files
    assert file.precision == "fp16", "an int8 file of three large layers would be larger than this one"
    assert report.agreement.files[file.name].largest_difference < 1e-4
    assert "hidden layers start at random" in report.model.weights


def test_a_run_without_fine_tuning_ships_the_probe_and_draws_no_curves(
    job: Job, report: Report, data: CovidCt, tmp_path: Path
) -> None:
    recipe = job.fitting.recipe.override(epochs=0)
    fitting = dataclasses.replace(job.fitting, recipe=recipe, run_folder=tmp_path / "run")
    probe_only = dataclasses.replace(job, fitting=fitting, models_folder=tmp_path / "models")
    (tmp_path / "models" / "figures").mkdir(parents=True)
    (tmp_path / "models" / "figures" / "curves.png").write_bytes(b"of an earlier run")
    probed = train(probe_only, data)
    assert [row["epoch"] for row in probed.history] == [0]
    assert probed.splits["val"].figures["auc"].value > 0.9, "the small data set is easy"
    assert sorted(path.name for path in (tmp_path / "models" / "figures").iterdir()) == [
        "confusion.png",
        "misclassified.png",
        "reliability.png",
        "roc.png",
    ]


@pytest.fixture(scope="module")
def refit_job(
    refit: Recipe, machine: Machine, weights: Path, patients: Path, tmp_path_factory: pytest.TempPathFactory
) -> Job:
    root = tmp_path_factory.mktemp("refit")
    return Job(Fitting(refit, machine, weights, root / "run", patients), root / "models", "1.2.3")


@pytest.fixture(scope="module")
def refit_report(refit_job: Job, mislabelled: CovidCt) -> Report:
    return train(refit_job, mislabelled)


def test_temperature_and_threshold_of_a_refit_come_from_out_of_fold_answers(
    refit_job: Job, refit_report: Report, mislabelled: CovidCt
) -> None:
    fitted, recipe = fit(refit_job.fitting, mislabelled), refit_job.fitting.recipe
    reference = fitted.reference
    labels = reference.split.labels
    assert refit_report.temperature == pytest.approx(fit_temperature(reference.logits, labels))
    own = predict_logits(fitted.network, reference.split, recipe, refit_job.fitting.machine)
    assert refit_report.temperature > 1.2 * fit_temperature(own, labels), "the network is surer of what it saw"
    probabilities = torch.softmax(reference.logits / refit_report.temperature, 1)[:, 1]
    expected = choose_threshold(probabilities, labels, "youden", "out-of-fold")
    assert refit_report.threshold.value == pytest.approx(expected.value)
    assert refit_report.operating_points["youden"].threshold == refit_report.threshold
    for point in refit_report.operating_points.values():
        called = probabilities >= point.threshold.value
        assert point.chosen_on["accuracy"].value == pytest.approx(
            (called == (labels == 1)).float().mean().item(), abs=1e-4
        )


def test_metrics_json_of_a_refit_names_out_of_fold_answers_and_no_validation(
    refit_job: Job, refit_report: Report
) -> None:
    written = json.loads((refit_job.models_folder / "metrics.json").read_text())
    for part in ("splits", "calibration"):
        assert set(written[part]) == {"out-of-fold", "test"}
    assert written["splits"]["out-of-fold"]["count"] == 24
    assert written["threshold"]["rule"].endswith("on out-of-fold answers to train and validation (Youden 1950)")
    assert [row["epoch"] for row in written["history"]] == [0]
    card = load_on_cpu(refit_job.models_folder, refit_report.files[0]).card
    assert card.threshold_rule == written["threshold"]["rule"]
    assert card.training_config["fit_on"] == "train+val"


def test_predictions_csv_of_a_refit_has_out_of_fold_rows_without_a_score_of_their_own(
    refit_job: Job, refit_report: Report, mislabelled: CovidCt
) -> None:
    with (refit_job.models_folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    out_of_fold, test = rows[:24], rows[24:]
    assert [row["path"] for row in out_of_fold] == [scan.path for scan in mislabelled.train_and_val().scans]
    assert {(row["split"], row["ood_score"]) for row in out_of_fold} == {("out-of-fold", "")}
    assert [row["path"] for row in test] == [scan.path for scan in mislabelled.test.scans]
    assert {row["split"] for row in test} == {"test"}
    assert all(float(row["ood_score"]) > 0 for row in test)
    for mine, name in ((out_of_fold, "out-of-fold"), (test, "test")):
        figures = refit_report.splits[name].figures
        hits = [(float(row["probability"]) >= refit_report.threshold.value) == (row["label"] == "1") for row in mine]
        assert sum(hits) / len(hits) == pytest.approx(figures["accuracy"].value, abs=1e-4)


def test_a_refit_that_has_ended_writes_the_same_again(
    refit_job: Job, refit_report: Report, mislabelled: CovidCt
) -> None:
    predictions = refit_job.models_folder / "predictions.csv"
    before = predictions.read_text()
    again = train(refit_job, mislabelled)
    assert again.files == refit_report.files
    assert (again.temperature, again.threshold) == (refit_report.temperature, refit_report.threshold)
    assert predictions.read_text() == before
