"""`covid-ct predict` on series: columns of a slice's place, the order of anatomy, and one row for each series."""

import csv
from pathlib import Path

import pytest

from covid_ct.__main__ import main
from covid_ct.rows import Row, in_anatomical_order
from service.api_study import StudyAnswer
from tests.covid_ct.test_archive import predicted, text_of
from tests.support.files.dicoms import ct, phantom
from tests.support.files.studies import gzipped, series, volume, zipped
from tests.support.processes.client import png
from tests.support.processes.server import Server

HEIGHTS = [50.0 + 10 * step for step in range(6)]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Three studies: a folder with two series from the head to the feet and a scout, a zip, and a volume."""
    folder = tmp_path / "studies"
    (folder / "1").mkdir(parents=True)
    for uid in ("1.2.3", "1.2.4"):
        for number, data in enumerate(series(HEIGHTS[::-1], uid=uid)):
            (folder / "1" / f"{uid}-{number}").write_bytes(data)
    (folder / "1" / "scout").write_bytes(ct(phantom(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    (folder / "2.zip").write_bytes(
        zipped({f"{number}": data for number, data in enumerate(series(HEIGHTS, uid="1.2.5"))})
    )
    (folder / "3.nii.gz").write_bytes(gzipped(volume(HEIGHTS).to_bytes()))
    return folder


def rows_in(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def predict(models: Path, output: Path, *arguments: str) -> int:
    return main(["predict", *arguments, "--models", str(models), "--output", str(output)])


def test_slices_have_their_series_and_the_order_of_anatomy(models: Path, studies: Path, tmp_path: Path) -> None:
    assert predict(models, tmp_path / "out.csv", str(studies)) == 0
    rows = rows_in(tmp_path / "out.csv")
    assert [(row["study"], row["series"]) for row in rows] == [
        *[("1.2", "1.2.3")] * 6,
        *[("1.2", "1.2.4")] * 6,
        *[("1.2", "1.2.5")] * 6,
        *[("", "")] * 6,
    ]
    assert [float(row["position_mm"]) for row in rows] == HEIGHTS * 4
    assert [row["instance"] for row in rows[:6]] == [f"1.2.3.{number}" for number in range(6, 0, -1)]
    assert predict(models, tmp_path / "out.csv", str(studies)) == 0
    assert rows_in(tmp_path / "out.csv") == rows


def test_a_cluster_writes_the_same_rows_in_the_same_order(models: Path, studies: Path, tmp_path: Path) -> None:
    assert predict(models, tmp_path / "out.csv", str(studies)) == 0
    predicted([str(studies)], tmp_path / "parts", models)
    assert text_of(tmp_path / "parts") == (tmp_path / "out.csv").read_text()


def test_one_row_for_each_series_is_the_answer_of_the_study(
    models: Path, studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(models, tmp_path / "out.csv", f"{studies}/*", "--by-series") == 0
    assert "4 predicted, 0 failed, 1 other files skipped" in capsys.readouterr().err
    rows = rows_in(tmp_path / "out.csv")
    assert [(Path(row["path"]).name, row["series"]) for row in rows] == [
        ("1", "1.2.3"),
        ("1", "1.2.4"),
        ("2.zip", "1.2.5"),
        ("3.nii.gz", ""),
    ]
    assert main(["study", str(studies / "1"), "--models", str(models), "--json"]) == 0
    answer = StudyAnswer.model_validate_json(capsys.readouterr().out)
    for row, only in zip(rows, answer.series, strict=False):
        assert float(row["probability"]) == only.probability
        assert float(row["lung_volume_ml"]) == only.lung_volume_ml
        assert (row["severity"], row["label"]) == (only.severity, only.label)
        assert (row["slices_read"], row["spacing_mm"]) == ("6", "10.0")


def test_one_row_for_each_series_is_the_same_from_a_cluster_and_a_service(
    models: Path, server: Server, studies: Path, tmp_path: Path
) -> None:
    assert predict(models, tmp_path / "out.csv", f"{studies}/*", "--by-series") == 0
    progress = predicted([f"{studies}/*"], tmp_path / "parts", models, by_series=True)
    assert (progress.answered, progress.files, progress.total) == (4, 3, 3)
    assert text_of(tmp_path / "parts") == (tmp_path / "out.csv").read_text()
    assert main(["predict", f"{studies}/*", "--by-series", "--url", server.url, "--output", f"{tmp_path}/a.csv"]) == 0
    assert rows_in(tmp_path / "a.csv") == rows_in(tmp_path / "out.csv")


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_study_is_repeated_as_a_whole_until_nothing_of_it_fails(
    engine: str, models: Path, studies: Path, tmp_path: Path
) -> None:
    def run() -> int:
        if engine == "local":
            return predict(models, tmp_path / "out.csv", f"{studies}/*", "--by-series")
        return predicted([f"{studies}/*"], tmp_path / "parts", models, by_series=True).failed

    def written() -> list[dict[str, str]]:
        text = (tmp_path / "out.csv").read_text() if engine == "local" else text_of(tmp_path / "parts")
        return list(csv.DictReader(text.splitlines()))

    (studies / "1" / "broken").write_bytes(series([5.0])[0][:-9])
    (studies / "4").write_bytes(b"text")
    assert run() > 0
    assert [row["error"] for row in written()] == ["", "", "damaged_image", "", "", "no_slices"]
    (studies / "1" / "broken").unlink()
    (studies / "4").write_bytes(series(HEIGHTS)[0])
    assert run() == 0
    assert sorted(Path(row["path"]).name for row in written()) == ["1", "1", "2.zip", "3.nii.gz", "4"]


def test_rows_of_slices_and_of_series_do_not_mix(
    models: Path, studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(models, tmp_path / "out.csv", f"{studies}/2.zip") == 0
    assert predict(models, tmp_path / "out.csv", f"{studies}/2.zip", "--by-series") == 1
    assert "choose another --output" in capsys.readouterr().err


def test_a_window_applies_to_series_here_and_is_refused_for_a_service(
    models: Path, server: Server, studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    window = ["--window", "-600", "1400", "--by-series"]
    assert predict(models, tmp_path / "out.csv", f"{studies}/2.zip", *window) == 0
    assert rows_in(tmp_path / "out.csv")[0]["window"] == "-600/1400"
    assert main(["predict", f"{studies}/2.zip", "--url", server.url, *window]) == 1
    assert "leave out --window" in capsys.readouterr().out


def test_pictures_stay_in_the_order_of_files(models: Path, tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_bytes(png())
    assert predict(models, tmp_path / "out.csv", f"{tmp_path}/b.png", f"{tmp_path}/a.png") == 0
    assert [Path(row["path"]).name for row in rows_in(tmp_path / "out.csv")] == ["b.png", "a.png"]


def test_a_series_stays_where_it_begins_and_rows_without_a_place_stay_where_they_are() -> None:
    rows = [
        Row("a", series="1", position_mm=9),
        Row("b"),
        Row("c", series="2", position_mm=5),
        Row("d", series="1", position_mm=3),
        Row("e", series="2"),
    ]
    assert [row.path for row in in_anatomical_order(rows, lambda row: row)] == ["d", "a", "b", "c", "e"]
