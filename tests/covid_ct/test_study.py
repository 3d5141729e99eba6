import io
import json
from pathlib import Path
from unittest.mock import MagicMock

import httpx2
import numpy as np
import pydicom
import pytest

from covid_ct import Client, ClientError, ProblemError, SourceError, StudyProgress, UnreachableError
from covid_ct.__main__ import main
from covid_ct.http import StudyResults
from service.api import ModelName
from service.api_study import OtherFile, StudyAnswer
from service.dicom_out import MISSING
from tests.support.files.dicoms import PATIENT, ct, phantom
from tests.support.files.studies import series, volume, zipped
from tests.support.processes.client import png
from tests.support.processes.server import Server

HEIGHTS = [50.0 + 10 * step for step in range(6)]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study as a folder: a series in sub-folders, a scout and a document."""
    for number, data in enumerate(series(HEIGHTS[::-1])):
        path = tmp_path / "study" / f"S{number % 2}" / f"IM{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "study" / "scout").write_bytes(ct(phantom(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    (tmp_path / "study" / "report.pdf").write_bytes(b"%PDF-1.4")
    return tmp_path / "study"


def answer_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> StudyAnswer:
    """The answer of the command line."""
    assert main(["study", *arguments, "--json"]) == 0
    return StudyAnswer.model_validate_json(capsys.readouterr().out)


def test_a_normal_study_ends_with_status_0_and_one_answer(
    models: Path, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", str(study), "--models", str(models)]) == 0
    printed = capsys.readouterr()
    assert "6 slices of 64 x 64, 10.00 mm apart: 6 read" in printed.out
    assert "skipped       1 localizer, 1 unsupported_image_type" in printed.out
    for word in ("probability", "involvement", "volume", "key slices"):
        assert word in printed.out
    assert "not a medical device" in printed.err
    assert printed.err.startswith("model tiny 0.0.1")


def test_folder_zip_and_volume_get_the_same_answer(
    models: Path, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({path.name: path.read_bytes() for path in study.rglob("IM*")}))
    (tmp_path / "a.nii").write_bytes(volume(HEIGHTS).to_bytes())
    folder, zip_, nifti = (
        answer_of(capsys, str(path), "--models", str(models)).series[0]
        for path in (study, tmp_path / "a.zip", tmp_path / "a.nii")
    )
    assert folder.probability == zip_.probability == nifti.probability
    assert folder.lung_volume_ml == pytest.approx(nifti.lung_volume_ml)


@pytest.mark.parametrize("where", ["local", "service"])
def test_a_damaged_file_is_named_by_its_path_and_the_rest_is_answered(
    where: str, server: Server, models: Path, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "broken").write_bytes(series([5.0])[0][:-9])
    place = ["--models", str(models)] if where == "local" else ["--url", server.url]
    assert main(["study", str(study), *place]) == 1
    printed = capsys.readouterr()
    assert f"failed: {study}/broken: " in printed.err
    assert "6 read" in printed.out


def test_identifiers_are_in_the_json_only_if_asked(
    models: Path, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer_of(capsys, str(study), "--models", str(models)).series[0].series_uid is None
    assert answer_of(capsys, str(study), "--models", str(models), "--uids").series[0].series_uid == "1.2.3"


def test_the_json_can_be_read_whatever_the_encoding_of_the_output(
    models: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study / "gr\u00fcn.pdf").write_bytes(b"%PDF-1.4")
    output = io.TextIOWrapper(io.BytesIO(), encoding="cp1251")
    monkeypatch.setattr("sys.stdout", output)
    assert main(["study", str(study), "--models", str(models), "--json", "--uids"]) == 0
    output.seek(0)
    names = {file["name"] for file in json.load(output)["skipped"]}
    assert str(study / "gr\u00fcn.pdf") in names


def test_results_are_written_as_dicom(
    models: Path, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_of(capsys, str(study), "--models", str(models), "--dicom", str(tmp_path / "out"))
    masks = pydicom.dcmread(tmp_path / "out" / "series-0" / "segmentation.dcm")
    assert (masks.Modality, str(masks.PatientName)) == ("SEG", PATIENT)
    assert (tmp_path / "out" / "series-0" / "report.dcm").is_file()
    assert len(list((tmp_path / "out" / "series-0").glob("key-*.png"))) == 3


def test_a_service_writes_the_same_results(
    server: Server, models: Path, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_of(capsys, str(study), "--models", str(models), "--dicom", str(tmp_path / "here"))
    answer_of(capsys, str(study), "--url", server.url, "--dicom", str(tmp_path / "there"))
    here, there = (
        {path.relative_to(tmp_path / folder): path.read_bytes() for path in (tmp_path / folder).rglob("*.*")}
        for folder in ("here", "there")
    )
    assert here.keys() == there.keys()
    masks = [pydicom.dcmread(tmp_path / folder / "series-0" / "segmentation.dcm") for folder in ("here", "there")]
    assert masks[0].PixelData == masks[1].PixelData
    assert [here[name] == there[name] for name in here if name.suffix == ".png"] == [True] * 3


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_path_without_a_study_is_one_line(
    models: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["study", str(tmp_path / name), "--models", str(models)]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_a_service_gives_the_answer_of_this_machine(
    server: Server, models: Path, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = answer_of(capsys, str(study), "--models", str(models))
    remote = answer_of(capsys, str(study), "--url", server.url)
    assert remote.series == local.series
    assert remote.skipped == local.skipped


def test_pictures_are_in_the_order_of_their_names_for_a_service_too(
    server: Server, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pictures").mkdir()
    for number in (1, 2, 10):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(png(100 + number))
    for options in (["--models", str(models)], ["--url", server.url]):
        slices = answer_of(capsys, str(tmp_path / "pictures"), "--uids", *options).series[0].slices
        assert [Path(slice_.name or "").stem for slice_ in slices] == ["1", "2", "10"]


def test_the_client_reports_progress_and_names_files_by_their_paths(server: Server, study: Path) -> None:
    steps: list[StudyProgress] = []
    with Client(server.url) as client:
        answer = client.predict_study(study, uids=True, report=steps.append)
    assert list(dict.fromkeys(step.done for step in steps)) == list(range(7))
    assert {slice_.name for slice_ in answer.series[0].slices} == {str(path) for path in study.rglob("IM*")}


def test_a_study_is_sent_without_names(study: Path) -> None:
    bodies: list[bytes] = []

    def refuse(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.read())
        return httpx2.Response(500, text="no")

    with Client(transport=httpx2.MockTransport(refuse)) as client, pytest.raises(ClientError):
        client.predict_study(study)
    assert bodies[0].count(b"filename=") == len(list(study.rglob("*.*"))) + len(list(study.rglob("IM*"))) + 1
    assert b"IM0" not in bodies[0]
    assert b"report.pdf" not in bodies[0]


def test_a_problem_of_a_study_is_raised(server: Server, tmp_path: Path) -> None:
    black = ct(np.zeros((64, 64), np.uint16), RescaleIntercept=-3000)
    (tmp_path / "a").write_bytes(black)
    (tmp_path / "b").write_bytes(b"text")
    with Client(server.url) as client:
        with pytest.raises(ProblemError) as caught:
            client.predict_study(tmp_path / "a")
        assert caught.value.code == "no_lungs"
        with pytest.raises(ProblemError) as caught:
            client.predict_study(tmp_path / "b")
        assert caught.value.code == "no_slices"
        with pytest.raises(SourceError, match=r"No file matches|can.t be read"):
            client.predict_study(tmp_path / "c")


def test_an_answer_that_breaks_off_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    line = json.dumps({"progress": {"done": 1, "of": 2, "seconds_left": None}})
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, text=line + "\n"))
    with Client(transport=transport) as client, pytest.raises(UnreachableError, match="before its last line"):
        client.predict_study(tmp_path / "a")


def test_what_a_service_says_moves_no_cursor(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = [OtherFile(file=0, reason="\x1b[2J", detail="\x1b]0;title\x07")]
    model = ModelName(name="tiny", version="1")
    results = StudyResults(
        StudyAnswer(series=[], skipped=failed, failed=failed, model=model), {"series-0/\x1b[2J" + MISSING: b"\x1b\xff"}
    )
    engine = MagicMock(description="tiny")
    engine.__enter__.return_value = engine
    engine.predict_study.return_value = results
    monkeypatch.setattr("covid_ct.study.open_engine", lambda _: engine)
    assert main(["study", str(study), "--url", "http://127.0.0.1:1", "--dicom", str(tmp_path / "out")]) == 1
    output = capsys.readouterr()
    assert "\x1b" not in output.out + output.err
    assert "\\x1b[2J" in output.out
