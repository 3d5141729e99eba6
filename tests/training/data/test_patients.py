from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.sources.patients_table import write_patients
from tests.support.sources.spreadsheet import write_spreadsheet
from training.data.covid_ct import CovidCt, LabelledSlice, Split
from training.data.patients import find_tables, group_by_paper, known_patients
from training.errors import TrainingError

COVID_TABLE = [
    ["File name", "Patient ID", "Age", "Captions"],
    ["2020.02.10.20021584-p6-52%0.png", "Patient 2", "50", "A & B, <left>"],
    ["kjr-21-e24-p2-8", "Patient 193 ", "", ""],
    ["Ni2020_Article-p4-13%0.png", "Patient 200", "", ""],
]
"""As in COVID-CT's spreadsheet: some names lack their suffix, some patients end in a space."""

OTHER_TABLE = ",image name,patient id\n0,15%0.jpg,crawled_patient_15\n1,15.png,medpix_patient_38\n"


def split_of(paths: Sequence[str]) -> Split:
    blank = np.zeros((1, 8, 8), np.uint8)
    return Split("test", tuple(LabelledSlice(path, int("CT_COVID" in path), path, "PNG L", blank) for path in paths))


def test_a_number_in_both_classes_is_of_two_patients_and_rows_may_be_in_any_order(
    data: CovidCt, tmp_path: Path
) -> None:
    path = write_patients(tmp_path / "patients.csv", data.train)
    groups = known_patients(path, tmp_path, data.train)
    assert groups is not None
    assert set(groups) == {f"{label} Patient {i}" for label in ("COVID", "NonCOVID") for i in range(4)}
    for slice_, group in zip(data.train.slices, groups, strict=True):
        assert slice_.path.startswith(f"CT_{group.split()[0]}/")
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *rows[::-1]]))
    assert known_patients(path, tmp_path, data.train) == groups


def test_a_slice_without_a_row_or_a_patient_is_named(data: CovidCt, tmp_path: Path) -> None:
    path = write_patients(tmp_path / "patients.csv", data.train)
    text = path.read_text()
    row = "covid-train%3.png,COVID,train,Patient 1\n"
    for changed in ("", row.replace("Patient 1", "")):
        path.write_text(text.replace(row, changed, 1))
        with pytest.raises(TrainingError, match=r"patients\.csv: no patient for CT_COVID/covid-train%3\.png \(1 such"):
            known_patients(path, tmp_path, data.train)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,class,patient\n", r"patients\.csv: no column split; the first line must name file, class, split"),
        (b"", r"patients\.csv: no column file"),
        (b"file,class,split,patient\n\xff,COVID,train,1\n", r"patients\.csv: not a CSV file in UTF-8"),
    ],
)
def test_a_table_of_another_kind_is_refused(data: CovidCt, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "patients.csv"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=message):
        known_patients(path, tmp_path, data.train)


def _with_meta_information(root: Path) -> tuple[Path, Split]:
    """A folder with COVID-CT's own two tables, and its slices."""
    write_spreadsheet(root / "COVID-CT-MetaInfo.xlsx", COVID_TABLE)
    (root / "NonCOVID-CT-MetaInfo.csv").write_text(OTHER_TABLE)
    covid = ("CT_COVID/kjr-21-e24-p2-8.png", "CT_COVID/2020.02.10.20021584-p6-52%0.png")
    return root, split_of([*covid, "CT_NonCOVID/15.png", "CT_NonCOVID/15%0.jpg"])


def test_patients_are_read_from_the_meta_information_of_covid_ct(tmp_path: Path) -> None:
    root, split = _with_meta_information(tmp_path)
    patients = ("COVID Patient 193", "COVID Patient 2", "NonCOVID medpix_patient_38", "NonCOVID crawled_patient_15")
    assert known_patients(None, root, split) == patients


def test_the_named_table_and_then_patients_csv_come_before_the_meta_information(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, split = _with_meta_information(tmp_path)
    assert [path.name for path in find_tables(None, root)] == ["COVID-CT-MetaInfo.xlsx", "NonCOVID-CT-MetaInfo.csv"]
    (root / "patients.csv").write_text("")
    assert find_tables(None, root) == (root / "patients.csv",)
    assert find_tables(Path("mine.csv"), root) == (Path("mine.csv"),)
    assert known_patients(None, root / "elsewhere", split) is None
    assert "each slice counts as a patient, so intervals are too narrow" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (COVID_TABLE[:2], r"no patient for CT_COVID/kjr-21-e24-p2-8\.png \(1 such"),
        ([["Name", "Patient ID"]], r"COVID-CT-MetaInfo\.xlsx: no column File name"),
        ([], r"COVID-CT-MetaInfo\.xlsx: no column File name"),
        (None, r"COVID-CT-MetaInfo\.xlsx: not a spreadsheet"),
    ],
)
def test_a_spreadsheet_that_lacks_something_is_named(
    tmp_path: Path, rows: list[list[str]] | None, message: str
) -> None:
    root, split = _with_meta_information(tmp_path)
    if rows is None:
        (root / "COVID-CT-MetaInfo.xlsx").write_text("File name,Patient ID\n")
    else:
        write_spreadsheet(root / "COVID-CT-MetaInfo.xlsx", rows)
    with pytest.raises(TrainingError, match=message):
        known_patients(None, root, split)


def test_covid_slices_are_together_by_paper_and_the_others_by_patient() -> None:
    papers = {
        "CT_COVID/2020.02.10.20021584-p6-52%0.png": "2020.02.10.20021584",
        "CT_COVID/2020.02.10.20021584-p6-52%1.png": "2020.02.10.20021584",
        "CT_COVID/2020.02.10.2002158-p6.png": "2020.02.10.2002158",
        "CT_COVID/kjr-21-e24-g001-l-a.jpg": "kjr",
        "CT_COVID/bmj.m606.full-p1.png": "bmj.m606.full",
        "CT_COVID/PIIS0140673620301549%0.png": "PIIS0140673620301549",
        "CT_COVID/med.png": "med",
    }
    others = {"CT_NonCOVID/14.png": "NonCOVID a", "CT_NonCOVID/35%1.jpg": "NonCOVID b"}
    patients = [f"COVID Patient {i}" for i in range(len(papers))] + list(others.values())
    groups = group_by_paper(split_of([*papers, *others]), patients)
    assert groups == (*(f"COVID {paper}" for paper in papers.values()), *others.values())


def test_papers_that_share_a_patient_are_one_group_but_not_across_classes() -> None:
    split = split_of([f"CT_COVID/{name}.png" for name in ("a-1", "a-2", "b-1", "b-2", "c-1")])
    first, second, third, fourth, alone = group_by_paper(split, ("1", "2", "2", "3", "4"))
    assert first == second == third == fourth != alone
    split = split_of(["CT_COVID/a-1.png", "CT_NonCOVID/a-1.png"])
    assert group_by_paper(split, ("COVID 1", "NonCOVID 1")) == ("COVID a", "NonCOVID 1")
