from pathlib import Path

import pytest

from tests.support.sources.patients_table import write_patients
from training.data.covid_ct import CovidCt
from training.data.patients import read_patients
from training.errors import TrainingError


def test_a_number_in_both_classes_is_of_two_patients(data: CovidCt, tmp_path: Path) -> None:
    groups = read_patients(write_patients(tmp_path / "patients.csv", data.train), data.train)
    assert len(groups) == 16
    assert set(groups) == {f"{label} Patient {i}" for label in ("COVID", "NonCOVID") for i in range(4)}
    for each, group in zip(data.train.slices, groups, strict=True):
        assert each.path.startswith(f"CT_{group.split()[0]}/")


def test_rows_may_be_in_any_order(data: CovidCt, tmp_path: Path) -> None:
    path = write_patients(tmp_path / "patients.csv", data.train)
    groups = read_patients(path, data.train)
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *rows[::-1]]))
    assert read_patients(path, data.train) == groups


def test_a_slice_without_a_row_or_a_patient_is_named(data: CovidCt, tmp_path: Path) -> None:
    path = write_patients(tmp_path / "patients.csv", data.train)
    text = path.read_text()
    row = "covid-train%3.png,COVID,train,Patient 1\n"
    for changed in ("", row.replace("Patient 1", "")):
        path.write_text(text.replace(row, changed, 1))
        with pytest.raises(TrainingError, match=r"patients\.csv: no patient for CT_COVID/covid-train%3\.png \(1 such"):
            read_patients(path, data.train)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"file,class,patient\n",
            r"patients\.csv: no column split; the first line must name file, class, split, patient",
        ),
        (b"", r"patients\.csv: no column file"),
        (b"file,class,split,patient\n\xff,COVID,train,1\n", r"patients\.csv: not a CSV file in UTF-8"),
    ],
)
def test_a_table_of_another_kind_is_refused(data: CovidCt, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "patients.csv"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=message):
        read_patients(path, data.train)


def test_a_table_that_is_not_there_is_named(data: CovidCt, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"nowhere\.csv: can't read the table: No such file"):
        read_patients(tmp_path / "nowhere.csv", data.train)
