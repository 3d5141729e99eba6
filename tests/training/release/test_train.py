import csv
import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from service.model.file import load_model, load_on_cpu, read_manifest, synthetic_slice
from training.data.covid_ct import CovidCt
from training.evaluation.calibration import fit_temperature
from training.evaluation.thresholds import choose_threshold
from training.learning.features import predict_logits
from training.learning.fit import FitSettings, fit
from training.network.vgg import empty_vgg
from training.recipe import Recipe
from training.release.report import Report
from training.release.train import TrainingJob, train
from training.run.machine import Machine


def test_the_sample_of_the_data_is_in_the_run_folder_which_does_not_ship(job: TrainingJob, report: Report) -> None:
    assert (job.settings.run_folder / "sample.png").read_bytes().startswith(b"\x89PNG")


def test_the_models_folder_gets_everything_that_ships(job: TrainingJob, report: Report) -> None:
    names = {str(path.relative_to(job.models_folder)) for path in job.models_folder.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.png" for name in ("confusion", "curves", "misclassified", "reliability", "roc")}
    files = {f"covid-ct-vgg19_bn.{precision}.pt" for precision in ("fp16", "int8")}
    assert names == {"metrics.json", "predictions.csv"} | files | figures


@pytest.mark.parametrize(("precision", "most_bytes"), [("fp16", 8_000_000), ("int8", 4_000_000)])
def test_the_manifest_pins_each_file_and_the_service_can_load_it(
    job: TrainingJob, report: Report, precision: str, most_bytes: int
) -> None:
    (file,) = [file for file in read_manifest(job.models_folder).files if file.precision == precision]
    data = (job.models_folder / file.name).read_bytes()
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    assert file.bytes == len(data) <= most_bytes
    artifact = load_on_cpu(job.models_folder, file)
    card = artifact.card
    assert (card.name, card.version, card.input_size) == ("covid-ct", "1.2.3", job.settings.recipe.network.input_size)
    assert card.precision == precision
    assert card.training_config == job.settings.recipe.model_dump(mode="json")
    batch = torch.from_numpy(synthetic_slice(card.self_check.seed, card.input_size))[None]
    assert artifact.network(batch)["probability"].item() == pytest.approx(card.self_check.probability, abs=1e-4)


def test_metrics_json_is_the_report_and_agrees_with_the_card(job: TrainingJob, report: Report) -> None:
    written = json.loads((job.models_folder / "metrics.json").read_text())
    assert written == report.model_dump(mode="json")
    card = load_model(job.models_folder / report.files[0].name, torch.device("cpu"), "fp32").card
    assert card.test_metrics == report.splits["test"].figures
    assert (card.threshold, card.calibration.slope) == (report.threshold.value, 1 / report.temperature)
    assert card.operating_points == {rule: point.threshold.value for rule, point in report.operating_points.items()}
    assert card.threshold in card.operating_points.values()
    assert card.data == report.data
    assert [row["epoch"] for row in written["history"]] == [0, 1]


def test_the_exported_files_answer_as_the_training_network_does(report: Report) -> None:
    assert report.agreement.rounding < 5e-3
    exact, rounded = (report.agreement.files[file.name] for file in report.files)
    assert exact.largest_difference < 1e-4
    assert (exact.auc_change, exact.decisions_equal) == (0.0, 1.0)
    assert 0 < rounded.largest_difference < 0.2
    assert rounded.decisions_equal == 1.0


def test_predictions_csv_has_a_row_a_slice_that_leads_to_the_figures(
    job: TrainingJob, data: CovidCt, report: Report
) -> None:
    with (job.models_folder / "predictions.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    rows = [row for row in written if row["split"] == "test"]
    assert [row["path"] for row in written if row["split"] == "val"] == [each.path for each in data.val.slices]
    assert len(written) == 16
    assert [row["path"] for row in rows] == [each.path for each in data.test.slices]
    hits = [(float(row["probability"]) >= report.threshold.value) == (row["label"] == "1") for row in rows]
    assert sum(hits) / len(hits) == pytest.approx(report.splits["test"].figures["accuracy"].value)


def test_the_same_command_again_trains_nothing_and_writes_the_same_file(
    job: TrainingJob, data: CovidCt, report: Report
) -> None:
    again = train(job, data)
    assert again.files == report.files
    assert again.history == report.history
    assert again.wall_time_seconds.probe == report.wall_time_seconds.probe


def small_classifier(architecture: str) -> tuple[nn.Sequential, nn.Sequential]:
    """VGG's features, and its classifier with 16 hidden channels instead of 4096."""
    features, _ = empty_vgg(architecture)
    hidden = [nn.Linear(512 * 49, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 16), nn.ReLU(), nn.Dropout()]
    return features, nn.Sequential(*hidden, nn.Linear(16, 1000))


def test_the_seed_recipes_head_exports_too(
    data: CovidCt, recipe: Recipe, machine: Machine, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.network.slice_network.empty_vgg", small_classifier)
    seed = recipe.override(
        head="classifier", layers="", probe="false", epochs=1, calibrate=False, threshold_rule="half"
    )
    report = train(TrainingJob(FitSettings(seed, machine, weights, tmp_path / "run"), tmp_path / "models", "0"), data)
    assert report.threshold.value == 0.5
    assert report.temperature == 1.0
    (file,) = report.files
    assert file.precision == "fp16", "an int8 file of three large layers would be larger than this one"
    assert report.agreement.files[file.name].largest_difference < 1e-4
    assert "hidden layers start at random" in report.model.weights


def test_a_run_without_fine_tuning_ships_the_probe_and_draws_no_curves(
    probe_job: TrainingJob, probe_report: Report
) -> None:
    assert [row.epoch for row in probe_report.history] == [0]
    assert probe_report.splits["val"].figures["auc"].value > 0.9, "the small data set is easy"
    plots = sorted(path.name for path in (probe_job.models_folder / "figures").iterdir())
    assert plots == ["confusion.png", "misclassified.png", "reliability.png", "roc.png"]


@pytest.fixture(scope="module")
def refit_job(
    refit: Recipe, machine: Machine, weights: Path, patients: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainingJob:
    root = tmp_path_factory.mktemp("refit")
    return TrainingJob(FitSettings(refit, machine, weights, root / "run", patients), root / "models", "1.2.3")


@pytest.fixture(scope="module")
def refit_report(refit_job: TrainingJob, mislabelled: CovidCt) -> Report:
    return train(refit_job, mislabelled)


def test_temperature_and_threshold_of_a_refit_come_from_out_of_fold_answers(
    refit_job: TrainingJob, refit_report: Report, mislabelled: CovidCt
) -> None:
    fitted, recipe = fit(refit_job.settings, mislabelled), refit_job.settings.recipe
    reference = fitted.reference
    labels = reference.split.labels
    assert refit_report.temperature == pytest.approx(fit_temperature(reference.logits, labels))
    own = predict_logits(fitted.network, reference.split, refit_job.settings.machine, recipe.network.input_size)
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
    refit_job: TrainingJob, refit_report: Report
) -> None:
    written = json.loads((refit_job.models_folder / "metrics.json").read_text())
    for part in ("splits", "calibration"):
        assert set(written[part]) == {"out-of-fold", "test"}
    assert written["splits"]["out-of-fold"]["count"] == 24
    assert written["threshold"]["rule"].endswith("on out-of-fold answers to train and validation (Youden 1950)")
    assert [row["epoch"] for row in written["history"]] == [0]
    card = load_on_cpu(refit_job.models_folder, refit_report.files[0]).card
    assert card.threshold_rule == written["threshold"]["rule"]
    assert Recipe.model_validate(card.training_config).fits_validation


def test_predictions_csv_of_a_refit_has_out_of_fold_rows(
    refit_job: TrainingJob, refit_report: Report, mislabelled: CovidCt
) -> None:
    with (refit_job.models_folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    out_of_fold, test = rows[:24], rows[24:]
    assert [row["path"] for row in out_of_fold] == [each.path for each in mislabelled.train_and_val().slices]
    assert {row["split"] for row in out_of_fold} == {"out-of-fold"}
    assert [row["path"] for row in test] == [each.path for each in mislabelled.test.slices]
    assert {row["split"] for row in test} == {"test"}
    for mine, name in ((out_of_fold, "out-of-fold"), (test, "test")):
        figures = refit_report.splits[name].figures
        hits = [(float(row["probability"]) >= refit_report.threshold.value) == (row["label"] == "1") for row in mine]
        assert sum(hits) / len(hits) == pytest.approx(figures["accuracy"].value, abs=1e-4)


def test_the_shipped_metrics_json_is_a_report_of_this_schema() -> None:
    shipped = Path(__file__).parents[3] / "models" / "metrics.json"
    assert Report.model_validate_json(shipped.read_text()).splits.keys() == {"out-of-fold", "test"}
