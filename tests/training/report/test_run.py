import csv
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from service.model.file import load_on_cpu, read_manifest, synthetic_slice
from training.data.covid_ct import CovidCt, Split
from training.data.patients import read_with_patients
from training.errors import TrainingError
from training.evaluation.scores import score
from training.report.page import not_learned
from training.report.run import ReportJob, ReportRunRecord, claim, run_report
from training.report.scores import evaluate, header_rule
from training.report_recipe import ReportRecipe
from training.run.machine import Machine


def test_the_models_folder_gets_model_file_figures_and_predictions(job: ReportJob, report: ReportRunRecord) -> None:
    names = {str(path.relative_to(job.models_folder)) for path in job.models_folder.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.png" for name in ("confusion", "curves", "reliability", "roc")}
    (model,) = {name for name in names if name.endswith(".pt")}
    assert re.fullmatch(r"covid-ct-vgg19_bn-1\.2\.3-[0-9a-f]{8}\.fp16\.pt", model)
    assert names - {model} == {"metrics.json", "metrics.schema.json", "predictions.csv"} | figures


def test_the_service_loads_the_pinned_file_which_predicts_like_the_evaluated_network(
    job: ReportJob, report: ReportRunRecord
) -> None:
    (file,) = read_manifest(job.models_folder).files
    data = (job.models_folder / file.name).read_bytes()
    assert (file.sha256, file.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    model = load_on_cpu(job.models_folder, file)
    card = model.card
    assert (card.name, card.version, card.input_size) == ("covid-ct", "1.2.3", 32)
    assert (card.precision, card.checks, card.threshold) == ("fp16", {}, 0.5)
    outputs = model.network(torch.from_numpy(synthetic_slice(card.self_check.seed, card.input_size))[None])
    assert outputs.keys() == {"probability", "heatmap"}
    assert outputs["probability"].item() == pytest.approx(card.self_check.probability, abs=1e-4)
    assert report.export_difference is not None
    assert report.export_difference < 1e-4


def test_metrics_json_is_the_record_and_agrees_with_the_card(job: ReportJob, report: ReportRunRecord) -> None:
    written = json.loads((job.models_folder / "metrics.json").read_text())
    assert written == report.model_dump(mode="json")
    card = load_on_cpu(job.models_folder, report.files[0]).card
    assert card.test_metrics == report.splits["test"].figures
    assert card.training_config == job.recipe.model_dump(mode="json")
    assert card.data == report.data
    assert [row["epoch"] for row in written["history"]] == [0, 1, 2, 3, 4, 5, 6]
    assert read_manifest(job.models_folder).probability_shares == report.probability_shares


def test_predictions_csv_has_a_row_a_slice_that_leads_to_the_figures(
    job: ReportJob, data: CovidCt, report: ReportRunRecord
) -> None:
    with (job.models_folder / "predictions.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    for split in (data.val, data.test):
        rows = [row for row in written if row["split"] == split.name]
        assert [row["path"] for row in rows] == [slice_.path for slice_ in split.slices]
        hits = [(float(row["probability"]) >= 0.5) == (row["label"] == "1") for row in rows]
        assert sum(hits) / len(hits) == pytest.approx(report.splits[split.name].figures["accuracy"].value)
    assert len(written) == 16
    assert {row["patient"] for row in written} == {""}, "they are not known"


def test_a_run_folder_is_bound_to_recipe_data_and_the_content_of_the_weights(
    job: ReportJob, report: ReportRunRecord, data: CovidCt, tmp_path: Path
) -> None:
    other = replace(job, recipe=job.recipe.model_copy(update={"learning_rate": 0.5}))
    with pytest.raises(TrainingError, match=r"this run has learning_rate = 0\.01, not 0.5; .*--fresh"):
        run_report(other, data)
    assert (job.run_folder / "last.pt").exists()
    fewer = data._replace(train=Split("train", data.train.slices[1:]))
    with pytest.raises(TrainingError, match=r"this run has sha256 of train data = \w{64}, not \w{64}"):
        claim(job, fewer)
    assert job.weights is not None
    weights = tmp_path / "other.pth"
    weights.write_bytes(job.weights.read_bytes() + b" ")
    with pytest.raises(TrainingError, match=r"this run has sha256 of weights = \w{64}, not \w{64}"):
        claim(replace(job, weights=weights), data)


@pytest.mark.usefixtures("thin")
def test_a_network_that_learned_nothing_is_scored_and_exported_only_on_request(
    data: CovidCt, recipe: ReportRecipe, machine: Machine, thin_weights: Path, tmp_path: Path
) -> None:
    half_wrong = (replace(slice_, label=(slice_.label + i) % 2) for i, slice_ in enumerate(data.val.slices))
    hopeless = data._replace(val=Split("val", tuple(half_wrong)))
    job = ReportJob(recipe.model_copy(update={"epochs": 1}), machine, thin_weights, tmp_path, "0")
    record = run_report(job, hopeless)
    assert not record.learned
    assert record.files == ()
    assert not list(tmp_path.rglob("covid-ct-*.pt"))
    assert not_learned(record).startswith("This network learned nothing: its ")
    assert "No model file was written; --export-anyway writes it." in not_learned(record)
    asked_for = run_report(replace(job, export_anyway=True), hopeless)
    card = load_on_cpu(job.models_folder, asked_for.files[0]).card
    assert card.limits.startswith("This network learned nothing: its AUC on validation is ")
    assert "No model file" not in not_learned(asked_for)


def test_an_untrained_network_learned_nothing_whatever_its_scores(data: CovidCt) -> None:
    perfect = {"val": data.val.labels.float(), "test": data.test.labels.float()}
    assert evaluate(perfect, data, 0, was_trained=True).learned
    assert not evaluate(perfect, data, 0, was_trained=False).learned


@pytest.mark.parametrize(("formats", "auc"), [(("JPEG RGB", "PNG RGBA"), 1.0), (("PNG L", "PNG L"), 0.5)])
def test_the_header_rule_is_perfect_only_where_the_format_gives_the_label_away(
    data: CovidCt, formats: tuple[str, str], auc: float
) -> None:
    splits = [
        Split(split.name, tuple(replace(slice_, encoding=formats[slice_.label]) for slice_ in split.slices))
        for split in data
    ]
    rule = header_rule(CovidCt(*splits), seed=0)
    assert rule.auc == auc
    assert rule.formats == ({"JPEG RGB": 0.0, "PNG RGBA": 1.0} if auc == 1 else {"PNG L": 0.5})


def test_the_audit_shows_how_far_an_alteration_moves_the_scores(data: CovidCt) -> None:
    labels = data.test.labels.float()
    probabilities = {"val": data.val.labels.float(), "test": labels, "reencoded": 1 - labels, "masked": labels}
    variants = evaluate(probabilities, data, 0).audit.variants
    assert {name: variant.auc_change for name, variant in variants.items()} == {"reencoded": -1.0, "masked": 0.0}


def test_every_interval_is_over_patients_where_they_are_known(data_root: Path, data: CovidCt, tmp_path: Path) -> None:
    rows = [
        f"{slice_.path.rpartition('/')[2]},{'COVID' if slice_.label else 'NonCOVID'},{split.name},{number // 2}"
        for split in (data.val, data.test)
        for number, slice_ in enumerate(split.slices)
    ]
    (tmp_path / "patients.csv").write_text("\n".join(["file,class,split,patient", *rows]) + "\n")
    known = read_with_patients(data_root, "any", None, tmp_path / "patients.csv")
    assert known.train.patients is None
    noise = torch.rand(3, 8, generator=torch.Generator().manual_seed(0))
    evaluation = evaluate(dict(zip(("val", "test", "masked"), noise, strict=True)), known, 0)
    for scores in evaluation.splits.values():
        assert scores.patients is not None
        assert scores.patients.count == 4
    by_patient = score(noise[2], known.test.labels, 0.5, 0, known.test.patients).figures
    assert evaluation.audit.variants["masked"].figures == by_patient
    assert by_patient != score(noise[2], known.test.labels, 0.5, 0).figures
