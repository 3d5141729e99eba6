from pathlib import Path

import numpy as np
import pytest

from tests.support.sources.patients_table import write_patients
from tests.support.sources.spreadsheet import write_spreadsheet
from training.data.covid_ct import CovidCt, LabelledSlice, Split
from training.data.patients import find_tables, known_patients, read_patients
from training.errors import TrainingError


def test_a_number_in_both_classes_is_of_two_patients(data: CovidCt, tmp_path: Path) -> None:
    groups = read_patients(write_patients(tmp_path / "patients.csv", data.train), data.train)
    assert len(groups) == 16
    assert set(groups) == {f"{label} Patient {i}" for label in ("COVID", "NonCOVID") for i in range(4)}
    for slice_, group in zip(data.train.slices, groups, strict=True):
        assert slice_.path.startswith(f"CT_{group.split()[0]}/")


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


COVID_TABLE = [
    ["File name", "Patient ID", "Age", "Captions"],
    ["2020.02.10.20021584-p6-52%0.png", "Patient 2", "50", "A & B, <left>"],
    ["kjr-21-e24-p2-8", "Patient 193 ", "", ""],
    ["Ni2020_Article-p4-13%0.png", "Patient 200", "", ""],
]
"""As in COVID-CT's spreadsheet: some names lack their suffix, some patients end in a space."""

OTHER_TABLE = ",image name,patient id\n0,15%0.jpg,crawled_patient_15\n1,15.png,medpix_patient_38\n"


def _with_meta_information(root: Path) -> tuple[Path, Split]:
    """A folder with COVID-CT's own two tables, and its slices."""
    write_spreadsheet(root / "COVID-CT-MetaInfo.xlsx", COVID_TABLE)
    (root / "NonCOVID-CT-MetaInfo.csv").write_text(OTHER_TABLE)
    blank = np.zeros((1, 8, 8), np.uint8)
    names = ("CT_COVID/kjr-21-e24-p2-8.png", "CT_COVID/2020.02.10.20021584-p6-52%0.png", "CT_NonCOVID/15.png")
    slices = [LabelledSlice(name, int("CT_COVID" in name), name, "PNG L", blank) for name in names]
    return root, Split("test", (*slices, LabelledSlice("CT_NonCOVID/15%0.jpg", 0, "", "JPEG L", blank)))


def test_patients_are_read_from_the_meta_information_of_covid_ct(tmp_path: Path) -> None:
    root, split = _with_meta_information(tmp_path)
    patients = ("COVID Patient 193", "COVID Patient 2", "NonCOVID medpix_patient_38", "NonCOVID crawled_patient_15")
    assert known_patients(None, root, split) == patients


def test_the_named_table_and_then_patients_csv_come_before_the_meta_information(tmp_path: Path) -> None:
    root, _ = _with_meta_information(tmp_path)
    assert [path.name for path in find_tables(None, root)] == ["COVID-CT-MetaInfo.xlsx", "NonCOVID-CT-MetaInfo.csv"]
    (root / "patients.csv").write_text("")
    assert find_tables(None, root) == (root / "patients.csv",)
    assert find_tables(Path("mine.csv"), root) == (Path("mine.csv"),)


def test_without_both_tables_of_meta_information_a_warning_says_that_slices_count_as_patients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, split = _with_meta_information(tmp_path)
    (root / "NonCOVID-CT-MetaInfo.csv").unlink()
    assert known_patients(None, root, split) is None
    assert "each slice counts as a patient" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (COVID_TABLE[:2], r"no patient for CT_COVID/kjr-21-e24-p2-8\.png \(1 such"),
        ([["Name", "Patient ID"]], r"COVID-CT-MetaInfo\.xlsx: no column File name"),
        ([], r"COVID-CT-MetaInfo\.xlsx: no column File name"),
    ],
)
def test_a_spreadsheet_that_lacks_something_is_named(tmp_path: Path, rows: list[list[str]], message: str) -> None:
    root, split = _with_meta_information(tmp_path)
    write_spreadsheet(root / "COVID-CT-MetaInfo.xlsx", rows)
    with pytest.raises(TrainingError, match=message):
        known_patients(None, root, split)


def test_a_file_that_is_no_spreadsheet_is_named(tmp_path: Path) -> None:
    root, split = _with_meta_information(tmp_path)
    (root / "COVID-CT-MetaInfo.xlsx").write_text("File name,Patient ID\n")
    with pytest.raises(TrainingError, match=r"COVID-CT-MetaInfo\.xlsx: not a spreadsheet"):
        known_patients(None, root, split)
