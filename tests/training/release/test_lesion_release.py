import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from service.errors import ModelFileError
from service.model.card import INVOLVEMENT_BOUNDS, MANIFEST_NAME
from service.model.file import load_on_cpu, read_manifest
from tests.support.networks.thin_vgg import thin_vgg
from tests.support.sources.covid_ct import small_lists, write_data_set
from tests.support.sources.lesion_sources import chest_files, write_clear, write_labelled, write_lesions, write_other
from training.__main__ import main
from training.data.ct_slices import CtSlice
from training.evaluation.predictions import Predictions
from training.evaluation.scores import shares_up_to, written
from training.models.publish import CARD_NAME
from training.release.lesion_card import card_text
from training.release.lesion_plots import draw_plots
from training.release.lesion_record import LesionRunRecord
from training.release.predictions_csv import COLUMNS, PredictedSet
from training.run.run_folder import delete

STEPS = (
    "--finder-steps 50 --view-steps 5 --finder-batch-size 4 --finder-learning-rate 1e-2 --steps 2 --left-out-steps 2 "
    "--batch-size 2 --box-height 96 --box-width 128"
)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, thin_weights: Path) -> list[str]:
    """Options of a release on small generated sources."""
    root = tmp_path_factory.mktemp("sources")
    lists = small_lists({"train": 3, "val": 2, "test": 2})
    data = write_data_set(root / "covid-ct", lists, chest_files(lists))
    return [
        *("train", "--data", str(data), "--counts", "any", "--weights", str(thin_weights)),
        *("--labelled", str(write_labelled(root / "hospital", 3)), "--clear", str(write_clear(root / "clear"))),
        *(
            "--lesions",
            str(write_lesions(root / "lesions", volumes=6, slices=1)),
            "--other",
            str(write_other(root / "other")),
        ),
        *STEPS.split(),
    ]


@pytest.fixture(scope="module")
def run(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of that release."""
    folder = tmp_path_factory.mktemp("lesion") / "run"
    with thin_vgg():
        assert main([*options, "--run", str(folder), "--model-version", "9.8.7", "--export-anyway"]) == 0
    return folder


def test_both_files_are_loaded_as_the_service_loads_them_and_agree(run: Path) -> None:
    manifest = read_manifest(run / "model")
    assert {file.precision for file in manifest.files} == {"fp16", "int8"}
    grey = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 1, 320, 320)).astype(np.uint8))
    probabilities = []
    for file in manifest.files:
        artifact = load_on_cpu(run / "model", file)
        assert artifact.card.version == "9.8.7"
        assert "hospital" in artifact.card.left_out_metrics
        outputs = artifact.network(grey)
        assert {"heatmap", "lungs", "lung_involvement", *artifact.card.checks} <= set(outputs)
        lesion, covid = outputs["lesion_probability"].item(), outputs["covid_given_lesion"].item()
        assert outputs["probability"].item() == pytest.approx(lesion * covid, abs=1e-6)
        assert 0 <= lesion <= 1
        assert artifact.card.calibrations.keys() == {"lesion_probability", "covid_given_lesion"}
        assert artifact.card.operating_point().name == "differential"
        assert artifact.card.lesion_thresholds["triage"] > artifact.card.operating_points["triage"] == 0
        probabilities.append(outputs["probability"].item())
    assert probabilities[0] == pytest.approx(probabilities[1], abs=0.1)


def test_predictions_name_every_left_out_and_test_slice_and_the_manifest_has_their_shares(run: Path) -> None:
    rows = (run / "model" / "predictions.csv").read_text().splitlines()
    assert rows[0] == ",".join(COLUMNS)
    lesions = LesionRunRecord.model_validate_json((run / "model" / MANIFEST_NAME).read_bytes()).judgement.lesions
    assert sum(row.startswith("left-out,drawn,") for row in rows) == lesions.slices + lesions.without_lungs
    assert sum(row.startswith("test,") for row in rows) == 4
    assert sum(row.startswith("left-out,hospital,") for row in rows) == 6
    involvement = [float(row["lung_involvement"]) for row in csv.DictReader(rows) if row["set"] == "test"]
    manifest = read_manifest(run / "model")
    assert manifest.lung_involvement_shares == shares_up_to(involvement, INVOLVEMENT_BOUNDS)
    assert (len(manifest.probability_shares), manifest.probability_shares[-1]) == (10, 1.0)


def test_the_card_is_the_template_filled_from_metrics_json(run: Path) -> None:
    card = (run / "model" / "README.md").read_text()
    record = LesionRunRecord.model_validate_json((run / "model" / MANIFEST_NAME).read_bytes())
    assert card == card_text(record)
    assert card.startswith("# Model card: covid-ct 9.8.7")
    assert "$" not in card
    for name, source in record.judgement.sources.items():
        assert f"| {name} | {source.count} ({source.positives}), {source.groups} |" in card
    for point in record.judgement.operating_points.values():
        assert point.rule_with_range in card
    for calibration in record.judgement.calibrations.values():
        assert calibration.rule in card
    assert f"AUC | {written(record.splits['test'].figures['auc'])}".lower() in card.lower()
    assert all(f"`{file.name}`" in card for file in record.files)


def test_plots_show_the_operating_point_the_calibration_and_the_mistakes(run: Path) -> None:
    names = {path.name for path in (run / "model" / "figures").iterdir()}
    plots = ("roc", "confusion", "reliability", "losses")
    assert names == {f"{name}.png" for name in plots}
    assert (run / "samples.png").is_file()
    assert not (run / "model" / "samples.png").exists(), "it shows slices, so it is never released"


def test_the_roc_shows_each_left_out_source_with_its_operating_point_and_official_test_once(run: Path) -> None:
    record = LesionRunRecord.model_validate_json((run / "model" / MANIFEST_NAME).read_bytes())
    left_out, test = (_predicted(run, name) for name in ("left-out", "test"))
    (legend,) = draw_plots(record, left_out, test, {"network": run / "network-losses.csv"})["roc"].legends
    lines = [text.get_text() for text in legend.get_texts()]
    assert [line.partition(" (n")[0] for line in lines] == ["left-out covid-ct", "left-out hospital", "official test"]
    assert all(f"; at {record.judgement.threshold:.2f} sensitivity " in line for line in lines)


def _predicted(run: Path, name: str) -> PredictedSet:
    """The slices and predictions of a set in predictions.csv."""
    lines = (run / "model" / "predictions.csv").read_text().splitlines()
    rows = [row for row in csv.DictReader(lines) if row["set"] == name]
    grey, maps = np.zeros((320, 320), np.uint8), np.zeros((len(rows), 80, 80), np.float16)
    slices = [
        CtSlice(row["source"], row["file"], row["group"], "labelled", grey, int(row["label"]) if row["label"] else None)
        for row in rows
    ]
    lesion, covid = (
        np.array([row[column] for row in rows], np.float32) for column in ("lesion_probability", "covid_given_lesion")
    )
    return PredictedSet(
        name, slices, Predictions(lesion, covid, np.zeros((len(rows), 3), np.float32), maps, maps, maps)
    )


@pytest.mark.usefixtures("thin")
def test_a_finished_run_is_not_repeated(run: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != "run.lock"}
    assert main([*options, "--run", str(run), "--model-version", "9.8.7", "--export-anyway"]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    captured = capsys.readouterr()
    assert "this run is finished" in captured.err
    rows = {line.partition("  ")[0]: line.split("  ") for line in captured.out.splitlines()}
    record = LesionRunRecord.model_validate_json((run / "model" / MANIFEST_NAME).read_bytes())
    source = record.judgement.sources["hospital"]
    assert source.nested is not None, "its threshold is chosen on the other source"
    figures = (source.figures["auc"], source.nested.rates.sensitivity, source.nested.rates.specificity)
    shown = [cell.strip() for cell in rows["left out, hospital"] if cell]
    assert shown[-5:] == ["6", f"{source.nested.threshold:.2f}", *map(written, figures)]
    assert all(len(line) < 140 for line in captured.out.splitlines()), "not eleven intervals in a line"


@pytest.mark.usefixtures("thin")
def test_export_is_resumed_file_by_file(run: Path, options: list[str], tmp_path: Path) -> None:
    """As after a kill between the last check and the manifest: nothing that was written is made again."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy, copy_function=os.link)
    staging = copy / "model" / ".new"
    staging.mkdir()
    for path in (copy / "model").glob("*.pt"):
        path.rename(staging / path.name)
    (copy / "model" / MANIFEST_NAME).unlink()
    stages = ("files.json", "checks.json", "left-out-predictions.npz", "network.ckpt")
    before = {name: (copy / name).stat().st_mtime_ns for name in stages}
    assert main([*options, "--run", str(copy), "--model-version", "9.8.7", "--export-anyway"]) == 0
    assert {name: (copy / name).stat().st_mtime_ns for name in stages} == before
    first, again = (json.loads((folder / "model" / MANIFEST_NAME).read_text()) for folder in (run, copy))
    for name in ("date", "wall_time_seconds", "peak_memory_bytes"):
        first.pop(name), again.pop(name)
    assert again == first
    assert not staging.exists()


@pytest.mark.usefixtures("thin")
def test_a_network_that_learned_nothing_is_exported_only_when_asked_for(
    run: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "model")
    (copy / "files.json").unlink()
    assert main([*options, "--run", str(copy), "--model-version", "9.8.7"]) == 0
    assert "learned nothing" in capsys.readouterr().out
    metrics = json.loads((copy / "model" / MANIFEST_NAME).read_text())
    assert (metrics["learned"], metrics["files"]) == (False, [])
    assert not list(copy.rglob("*.pt.*")) + list((copy / "model").glob("*.pt"))
    with pytest.raises(ModelFileError, match="it names no model file, because training wrote none"):
        read_manifest(copy / "model")
    assert main([*options, "--run", str(copy), "--model-version", "9.8.7", "--export-anyway"]) == 0
    file = read_manifest(copy / "model").files[0]
    assert load_on_cpu(copy / "model", file).card.limits.startswith("This network learned nothing")
    assert "> **This network learned nothing: its AUC is not above 0.5" in (copy / "model" / CARD_NAME).read_text()


@pytest.mark.usefixtures("thin")
def test_fresh_deletes_every_file_of_the_run_and_no_other(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "notes.txt").write_text("mine")
    (copy / "model" / "figures" / "mine.png").write_bytes(b"mine")
    delete(copy)
    left = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert left == {"notes.txt", "run.lock", "model/figures/mine.png"}


@pytest.mark.usefixtures("thin")
def test_two_whole_runs_of_one_seed_write_the_same_bytes(run: Path, options: list[str], tmp_path: Path) -> None:
    assert main([*options, "--run", str(tmp_path / "run"), "--model-version", "9.8.7", "--export-anyway"]) == 0
    first, second = (
        {path.name: path for path in (folder / "model").rglob("*") if path.is_file()}
        for folder in (run, tmp_path / "run")
    )
    assert first.keys() == second.keys(), "names of model files contain their hash"
    assert sum(name.endswith(".pt") for name in first) == 2
    for name in first.keys() - {MANIFEST_NAME, CARD_NAME}:  # these state date, time and command
        assert first[name].read_bytes() == second[name].read_bytes(), name
    one, other = (json.loads(files[MANIFEST_NAME].read_text()) for files in (first, second))
    for name in ("command", "date", "wall_time_seconds", "peak_memory_bytes"):
        one.pop(name), other.pop(name)
    assert one == other


def test_metrics_json_says_what_it_was_made_from_and_how_to_read_it(run: Path) -> None:
    metrics = json.loads((run / "model" / MANIFEST_NAME).read_text())
    assert {"weights", "train slices", "test slices"} <= metrics["inputs"].keys()
    assert metrics["date"].endswith("+00:00")
    assert metrics["command"].startswith("python -m training")
    assert metrics["processor"]
    assert metrics["wall_time_seconds"].keys() == {"finder", "views", "left-out", "network", "evaluation_and_export"}
    assert all(seconds > 0 for seconds in metrics["wall_time_seconds"].values())
    assert {"python", "torch", "numpy", "scikit-learn", "imagecodecs"} <= metrics["versions"].keys()
    assert {"npv", "auprc", "log_loss", "brier", "calibration_error"} <= metrics["splits"]["test"]["figures"].keys()
    assert {"test", "test_corrected", "test_without_notes"} <= metrics["splits"].keys()
    assert all(file["figures"] for file in metrics["agreement"].values()), "the int8 file has a whole row too"
    for point in metrics["judgement"]["operating_points"].values():
        assert point["low"] <= point["threshold"] + point["lesion_threshold"] <= point["high"]
        assert point["sources"]["hospital"]["unknown"]["positives"] == 3
    altered = metrics["checks"]["altered"]
    assert {"upside down", "inverted", "refused window 40/400", "lung window -700/1000"} <= altered.keys()
    assert altered["inverted"]["hospital"]["count"] == 6
    schema = json.loads((run / "model" / metrics["json_schema"]).read_text())
    assert schema["title"] == "LesionRunRecord"
    assert metrics.keys() <= schema["properties"].keys()


@pytest.mark.usefixtures("thin")
def test_a_lengthened_run_goes_on_from_its_checkpoints(run: Path, options: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, copy_function=os.link)
    before = (copy / "left-out-000002.pt").stat().st_mtime_ns
    assert main([*options, "--run", str(copy), "--model-version", "9.8.7", "--steps", "3"]) == 0
    assert (copy / "left-out-000002.pt").stat().st_mtime_ns == before, "its steps are the same"
    assert (copy / "network-000003.pt").is_file()
    metrics = json.loads((copy / "model" / MANIFEST_NAME).read_text())
    assert (metrics["config"]["steps"], metrics["config"]["left_out_steps"]) == (3, 2)
    first = json.loads((run / "model" / MANIFEST_NAME).read_text())
    assert {file["sha256"] for file in metrics["files"]}.isdisjoint(file["sha256"] for file in first["files"])


@pytest.mark.usefixtures("thin")
def test_a_run_folder_of_another_recipe_is_refused(
    run: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--run", str(run), "--seed", "5"]) == 1
    assert "run.json: this run has recipe.seed = 0, not 5" in capsys.readouterr().err
