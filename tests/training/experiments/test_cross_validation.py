import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.support.covid_ct import small_files, small_lists, write_data_set
from tests.support.patients_table import write_patients
from training.__main__ import main
from training.data.covid_ct import SPLITS, CovidCt, Split, read_covid_ct
from training.experiments.cross_validation import CrossValidation
from training.recipe import Recipe

SMALL = [
    "--layers",
    "3_2,4_1",
    "--components",
    "8",
    "--input-size",
    "32",
    "--resize",
    "40",
    "--views",
    "1",
    "--magnify",
    "1",
]
SMALL += ["--counts", "any", "--device", "cpu", "--group-by", "patient"]
TUNED = ["--fit-on", "train", "--fine-tuning", "true", "--trainable", "head"]


def run(data_root: Path, weights: Path, data: CovidCt, out: Path, *options: str) -> CrossValidation:
    patients = write_patients(out.parent / "patients.csv", data.train_and_val())
    files = ["--data", str(data_root), "--weights", str(weights), "--patients", str(patients), "--out", str(out)]
    assert main(["crossvalidate", *files, *SMALL, "--folds", "2", *options]) == 0
    return CrossValidation.model_validate_json((out / "crossvalidation.json").read_text())


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "out-of-fold.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_probe_is_judged_by_its_out_of_fold_answers_which_are_written(
    data_root: Path, weights: Path, data: CovidCt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run(data_root, weights, data, tmp_path / "out", "--repeats", "2")
    rows = rows_of(tmp_path / "out")
    assert [row["path"] for row in rows] == [each.path for each in data.train_and_val().slices] * 2, "none of test"
    aucs, by_fold, accuracies = [], [], []
    for repeat in ("0", "1"):
        mine = [row for row in rows if row["repeat"] == repeat]
        labels, scores = ([float(row[name]) for row in mine] for name in ("label", "probability"))
        aucs.append(roc_auc_score(labels, scores))
        accuracies.append(np.mean([(score >= 0.5) == label for score, label in zip(scores, labels, strict=True)]))
        folds = [[row for row in mine if row["fold"] == fold] for fold in ("0", "1")]
        by_fold.append(
            np.mean([roc_auc_score([int(r["label"]) for r in f], [float(r["probability"]) for r in f]) for f in folds])
        )
    (figures,) = record.epochs
    for spread, values in ((figures.auc, aucs), (figures.auc_by_fold, by_fold), (figures.accuracy, accuracies)):
        assert spread.mean == pytest.approx(np.mean(values), abs=1e-4)
        assert spread.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-4)
    assert record.groups == 12
    assert record.reencoded is not None
    assert 0 <= record.reencoded.same_call.mean <= 1
    assert f"views 1 | 2 x 2, by patient | 0 | {figures.auc.mean:.3f} ± " in capsys.readouterr().out


def test_every_epoch_of_fine_tuning_is_reported(
    data_root: Path, weights: Path, data: CovidCt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--repeats", "1", "--epochs", "2", "--patience", "1", *TUNED]
    record = run(data_root, weights, data, tmp_path / "out", *options)
    assert [row.epoch for row in record.epochs] == [0, 1, 2]
    assert record.reencoded is None
    assert Recipe.model_validate(record.config).flat()["patience"] == 1
    assert {row["epoch"] for row in rows_of(tmp_path / "out")} == {"0", "1", "2"}
    out = capsys.readouterr().out
    changed = (
        "layers ['3_2', '4_1'], components 8, input_size 32, magnify 1.0, resize 40, fit_on train, views 1, epochs 2, "
    )
    assert out.count(f"| vgg19_bn.pth | `best`, {changed}") == 3


def test_fine_tuning_of_best_needs_a_probe_that_is_fitted_to_train_alone(
    data_root: Path, patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--data", str(data_root), "--patients", str(patients), "--out", str(tmp_path / "out")]
    assert main(["crossvalidate", *files, *SMALL, "--fine-tuning", "true"]) == 1
    assert "error: recipe: Value error, fit_on = train+val needs fine_tuning = false" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_slice_without_a_patient_is_one_line_on_stderr(
    data_root: Path, data: CovidCt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patients = write_patients(tmp_path / "patients.csv", Split("train", data.train.slices))
    assert main(["crossvalidate", "--data", str(data_root), "--counts", "any", "--patients", str(patients)]) == 1
    error = capsys.readouterr().err
    assert "patients.csv: no patient for CT_COVID/covid-val%0.png (8 such images)" in error


def test_slices_of_a_paper_are_kept_together(weights: Path, tmp_path: Path) -> None:
    lists = small_lists({"train": 8, "val": 4, "test": 4})
    for split in SPLITS:
        names = lists[split, "COVID"]
        lists[split, "COVID"] = [f"2020.03.0{1 + i // 2 % 2}.2003-{split}-{i}.png" for i in range(len(names))]
    root = write_data_set(tmp_path / "data", lists, small_files(lists))
    data = read_covid_ct(root, counts=None)
    record = run(root, weights, data, tmp_path / "out", "--repeats", "1", "--group-by", "paper")
    folds = {(row["path"].split("-")[0], row["fold"]) for row in rows_of(tmp_path / "out") if row["label"] == "1"}
    assert record.group_by == "paper"
    assert sorted(paper for paper, _ in folds) == ["CT_COVID/2020.03.01.2003", "CT_COVID/2020.03.02.2003"]
