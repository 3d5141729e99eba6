import contextlib
import csv
import io
import json
import os
import shlex
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import MediaStorageDirectoryStorage

from covid_ct.__main__ import main
from covid_ct.engines import LocalEngine
from covid_ct.files.slices import SourceSlice
from covid_ct.rows import read_rows
from service.api import SlicePrediction
from tests.covid_ct.test_http import ANSWER
from tests.support.files.dicoms import ct, phantom
from tests.support.files.studies import series
from tests.support.networks.tiny import tiny_card
from tests.support.processes.client import panels, png
from tests.support.processes.server import ROOT, Server, running


def folder_of(path: Path) -> Path:
    """Slices of several kinds, one of them damaged, and a file that is no image."""
    (path / "deep").mkdir(parents=True)
    (path / "a.png").write_bytes(png(40))
    (path / "b.dcm").write_bytes(ct(phantom()))
    (path / "bad.png").write_bytes(png(1)[:40])
    (path / "deep" / "frames").write_bytes(ct(np.stack([phantom()] * 2)))
    (path / "notes.txt").write_text("no image")
    with zipfile.ZipFile(path / "z.zip", "w") as archive:
        archive.writestr("in.png", png(240))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def names(path: Path) -> list[str]:
    return [Path(row["path"]).name for row in rows(path)]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_folder_gives_a_row_for_each_slice_and_a_bad_file_stops_nothing(
    suffix: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = folder_of(tmp_path / "in"), tmp_path / f"out{suffix}"
    assert main(["predict", str(folder), "--models", str(models), "--output", str(output)]) == 1
    assert names(output) == ["a.png", "b.dcm", "bad.png", "frames#0", "frames#1", "z.zip!in.png"]
    by_name = {Path(row["path"]).name: row for row in rows(output)}
    assert by_name["bad.png"]["error"] == "damaged_image"
    assert float(by_name["a.png"]["probability"]) < float(by_name["z.zip!in.png"]["probability"])
    assert by_name["b.dcm"]["probability"] == by_name["frames#1"]["probability"]
    assert [by_name[name]["window"] for name in ("a.png", "b.dcm", "frames#1")] == ["", "-600/1500", "-600/1500"]
    error = capsys.readouterr().err
    assert "5 predicted, 1 failed, 1 other files skipped" in error
    assert f"model tiny 0.0.1 {by_name['a.png']['model'].split()[-1]} from {models}, " in error
    assert "not a medical device" in error


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("cut", [1, 30, 150])
def test_an_interrupted_run_goes_on_after_a_half_written_line(
    suffix: str, cut: int, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = folder_of(tmp_path / "in"), tmp_path / f"out{suffix}"
    (folder / "bad.png").write_bytes(png(100))
    command = ["predict", str(folder), "--models", str(models), "--output", str(output)]
    assert main(command) == 0
    whole = output.read_text()
    output.write_text(whole[:-cut])
    assert main(command) == 0
    assert output.read_text() == whole
    assert "1 predicted, 0 failed, 5 in the output already" in capsys.readouterr().err


def test_what_failed_or_changed_is_tried_again(models: Path, tmp_path: Path) -> None:
    folder, output = folder_of(tmp_path / "in"), tmp_path / "out.csv"
    command = ["predict", str(folder), "--models", str(models), "--output", str(output)]
    assert main(command) == 1
    (folder / "bad.png").write_bytes(png(100))
    assert main(command) == 0
    assert sorted(names(output)) == ["a.png", "b.dcm", "bad.png", "frames#0", "frames#1", "z.zip!in.png"]
    (folder / "a.png").write_bytes(png(250))
    assert main(command) == 0
    assert names(output).count("a.png") == 2


@pytest.mark.parametrize("content", ["my,own,table\n1,2,3\n", "something", '{"path": 1}\n'])
def test_a_file_of_something_else_is_left_alone(
    content: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(png())
    output = tmp_path / "mine.csv"
    output.write_text(content)
    assert main(["predict", str(tmp_path / "a.png"), "--models", str(models), "--output", str(output)]) == 1
    assert output.read_text() == content
    assert "not an output of this command" in capsys.readouterr().err


def test_answers_of_another_window_do_not_get_into_the_same_file(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.dcm").write_bytes(ct(phantom()))
    command = ["predict", str(tmp_path / "a.dcm"), "--models", str(models), "--output", str(tmp_path / "o.csv")]
    assert main(command) == 0
    assert main([*command, "--window", "40", "400"]) == 1
    assert "choose another --output" in capsys.readouterr().err
    other = tmp_path / "p.csv"
    assert main([*command[:-1], str(other), "--window", "40", "400"]) == 0
    assert rows(other)[0]["probability"] != rows(tmp_path / "o.csv")[0]["probability"]


def test_a_service_gives_the_same_answers_as_the_model_here(models: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in")
    for name, data in (("black", png(2)), ("white", png(255)), ("two", panels())):
        (folder / f"{name}.png").write_bytes(data)
    assert main(["predict", str(folder), "--models", str(models), "--output", str(tmp_path / "l.csv")]) == 1
    with running(models, log_level="WARNING") as refusing:
        assert main(["predict", str(folder), "--url", refusing.url, "--output", str(tmp_path / "r.csv")]) == 1
    local, remote = rows(tmp_path / "l.csv"), rows(tmp_path / "r.csv")
    assert names(tmp_path / "l.csv") == names(tmp_path / "r.csv")
    for here, there in zip(local, remote, strict=True):
        same = ["error", "detail", "label", "model", "threshold", "flagged", "reason", "lung_involvement", "window"]
        same += ["operating_point"]
        assert [here[name] for name in same] == [there[name] for name in same]
        if here["probability"]:
            assert float(here["probability"]) == pytest.approx(float(there["probability"]), abs=1e-4)


def test_a_picture_that_fails_a_check_is_a_row_with_the_reason(models: Path, tmp_path: Path) -> None:
    for name, data in (("black", png(2)), ("good", png(200)), ("two", panels()), ("white", png(255))):
        (tmp_path / f"{name}.png").write_bytes(data)
    output = tmp_path / "out.csv"
    command = ["predict", *(str(path) for path in sorted(tmp_path.glob("*.png"))), "--models", str(models)]
    assert main([*command, "--output", str(output)]) == 1
    written = rows(output)
    assert [row["error"] for row in written] == ["no_lungs", "", "several_panels", "wrong_window"]
    assert "width 1500, level -600" in written[3]["detail"]
    good = written[1]
    assert [float(good[f"lung_involvement{side}"]) for side in ("", "_left", "_right")] == [1.0, 1.0, 1.0]
    assert (float(good["lung_fraction"]), good["flagged"], good["reason"]) == (1.0, "False", "")
    assert 0 < float(good["ood_score"]) < 1


def test_a_service_that_flags_gives_the_answer_with_the_reason(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "black.png").write_bytes(png(2))
    command = ["predict", str(tmp_path / "black.png"), "--url", server.url]
    assert main([*command, "--output", str(tmp_path / "out.csv")]) == 0
    (row,) = rows(tmp_path / "out.csv")
    assert (row["flagged"], row["reason"], row["error"], row["label"]) == ("True", "no_lungs", "", "")
    capsys.readouterr()
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "check failed: no_lungs" in table
    assert table.splitlines()[1].split()[1] == "-"


def test_the_table_has_the_share_of_lesion_where_the_model_finds_lungs(
    models: Path, classifier_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(png(200))
    lines = []
    for folder in (models, classifier_models):
        assert main(["predict", str(tmp_path / "a.png"), "--models", str(folder)]) == 0
        head, line = capsys.readouterr().out.splitlines()
        assert head.split() == ["probability", "label", "lesion/lung", "path"]
        lines.append(line.split())
    assert [line[2] for line in lines] == ["1.0000", "-"]


@pytest.mark.parametrize("where", ["local", "service"])
def test_the_operating_point_is_chosen_for_the_model_here_and_for_a_service(
    where: str, models: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(png(110))
    place = ["--models", str(models)] if where == "local" else ["--url", server.url]
    command = ["predict", str(tmp_path / "a.png"), *place]
    columns = []
    for point in ("balanced", "screening"):
        output = tmp_path / f"{point}.csv"
        assert main([*command, "--operating-point", point, "--output", str(output)]) == 0
        columns += [(row["operating_point"], float(row["threshold"]), row["label"]) for row in rows(output)]
    assert columns == [("balanced", 0.5, "NonCOVID"), ("screening", 0.3, "COVID")]
    assert main([*command, "--output", str(tmp_path / "screening.csv")]) == 1
    assert "operating point screening" in capsys.readouterr().err
    assert main([*command, "--operating-point", "sharp"]) == 2
    error = capsys.readouterr().err
    assert "no operating point 'sharp'; its operating points: balanced, screening" in error
    assert error.count("\n") == 1


def test_a_window_that_cannot_apply_is_said_and_not_recorded(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(png(200))
    (tmp_path / "b.dcm").write_bytes(ct(phantom()))
    output = tmp_path / "out.csv"
    command = ["predict", str(tmp_path), "--models", str(models), "--output", str(output)]
    assert main([*command, "--window", "-500", "1400"]) == 0
    assert [row["window"] for row in rows(output)] == ["", "-500/1400"]
    assert "--window does not apply to 1 slices without Hounsfield units" in capsys.readouterr().err


def test_a_refused_slice_of_a_volume_stops_no_other(models: Path, tmp_path: Path) -> None:
    white = np.full((64, 64), 4000, np.uint16)
    frames = np.stack([white, phantom(), white, phantom()])
    (tmp_path / "ct.dcm").write_bytes(ct(frames))
    output = tmp_path / "out.csv"
    assert main(["predict", str(tmp_path), "--models", str(models), "--output", str(output)]) == 1
    columns = [(row["path"].rpartition("#")[2], row["error"]) for row in rows(output)]
    assert columns == [("0", "wrong_window"), ("1", ""), ("2", "wrong_window"), ("3", "")]


def test_a_fault_of_this_program_in_one_file_ends_no_run(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, level in enumerate((40, 100, 200)):
        (tmp_path / f"{index}.png").write_bytes(png(level))

    def failing(self: LocalEngine, slice_: SourceSlice) -> SlicePrediction:
        if slice_.data == png(100):
            raise RuntimeError("a bug")
        return predict(self, slice_)

    predict = LocalEngine.predict
    monkeypatch.setattr(LocalEngine, "predict", failing)
    output = tmp_path / "out.csv"
    assert main(["predict", str(tmp_path), "--models", str(models), "--output", str(output)]) == 1
    assert [row["error"] for row in rows(output)] == ["", "internal_error", ""]
    assert rows(output)[1]["detail"] == "This program failed: RuntimeError: a bug"


@pytest.mark.parametrize(
    ("paths", "status", "telling"),
    [
        (["empty"], 1, "0 predicted, 1 failed"),
        (["notes"], 1, "error: no image was found in notes"),
        (["a.png", "./a.png", "a.png"], 0, "1 predicted, 0 failed"),
        (["-"], 0, "1 predicted, 0 failed"),
        (["missing.png", "a.png"], 1, "1 predicted, 1 failed"),
    ],
)
def test_unusual_paths_have_a_sensible_status(
    paths: list[str],
    status: int,
    telling: str,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(png(200))))
    Path("a.png").write_bytes(png(40))
    Path("empty").mkdir()
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("no image")
    assert main(["predict", *paths, "--models", str(models)]) == status
    assert telling in capsys.readouterr().err


def test_settings_of_the_service_change_nothing_here(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(png(2))
    for name, value in (
        ("MODELS_DIR", "nowhere"),
        ("PRECISION", "int8"),
        ("OUT_OF_DISTRIBUTION", "flag"),
        ("OPERATING_POINT", "sharp"),
        ("MAX_PIXELS", "1"),
    ):
        monkeypatch.setenv(f"COVIDCT_{name}", value)
    output = tmp_path / "out.csv"
    assert main(["predict", str(tmp_path / "a.png"), "--models", str(models), "--output", str(output)]) == 1
    assert [row["error"] for row in rows(output)] == ["no_lungs"]


FORMULA = "=HYPERLINK(A1).png"


def test_a_name_that_a_spreadsheet_would_run_is_text_and_the_run_continues(models: Path, tmp_path: Path) -> None:
    names_ = [FORMULA, "+1.png", "-2.png", "@SUM(1).png", "'=1.png", "'plain.png"]
    for name in names_:
        (tmp_path / name).write_bytes(png(200))
    with contextlib.chdir(tmp_path):
        command = ["predict", "--models", str(models), "--output", "out.csv", "--", *names_]
        assert main(command) == 0
        cells = [row["path"] for row in rows(Path("out.csv"))]
        assert cells == ["'=HYPERLINK(A1).png", "'+1.png", "'-2.png", "'@SUM(1).png", "''=1.png", "'plain.png"]
        before = Path("out.csv").read_text()
        assert main(command) == 0
        assert Path("out.csv").read_text() == before
        assert [row.path for row in read_rows(Path("out.csv"), "csv")] == names_


@contextlib.contextmanager
def answering_service(answers: dict[str, Any], statuses: dict[str, int]) -> Iterator[str]:
    """A service that gives these answers, by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps(answers[self.path.partition("?")[0]]).encode()
            self.send_response(statuses.get(self.path.partition("?")[0], 200))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_what_a_hostile_service_says_is_printed_without_control_characters(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    escapes = "\x1b]0;owned\x07\x1b[2J\u202e"
    card = tiny_card().model_dump(mode="json")
    point = {"probability": 0.5, "label": f"L{escapes}", "threshold": 0.5, "operating_point": f"balanced{escapes}"}
    answers = {
        "/model": {
            "card": card | {"name": f"m{escapes}", "operating_points": {}},
            "sha256": f"0{escapes}",
            "device": f"cpu{escapes}",
            "precision": "fp32",
            "precision_milliseconds": {},
            "operating_point": "x",
            "agreement": None,
        },
        "/predict": ANSWER | point,
    }
    refused = {"type": "x", "title": "t", "status": 422, "code": "c", "detail": f"bad{escapes}", "request_id": "r"}
    for status, body in ((200, answers["/predict"]), (422, refused)):
        with answering_service(answers | {"/predict": body}, {"/predict": status}) as url:
            (tmp_path / "a.png").write_bytes(png(200))
            for form in ("table", "csv", "jsonl"):
                assert main(["predict", str(tmp_path / "a.png"), "--url", url, "--format", form]) == int(status > 200)
                shown = "".join(capsys.readouterr())
                assert "bad" in shown if status > 200 else "L" in shown
                assert not any(character in shown for character in "\x1b\x07\u202e")


STREAMS = {
    "a full output": ("> /dev/full", 1, "error: standard output: can't be written: No space left on device"),
    "a closed output": (">&-", 2, "error: standard output is closed"),
}


@pytest.mark.parametrize("case", STREAMS)
def test_an_output_that_cannot_be_written_is_one_line(case: str, models: Path, tmp_path: Path) -> None:
    redirection, status, telling = STREAMS[case]
    (tmp_path / "a.png").write_bytes(png(200))
    done = in_shell(f"predict a.png --models {models} {redirection}", tmp_path)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1].startswith(telling)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_with_the_error_stream_closed_the_rows_stay_rows(models: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(200))
    done = in_shell(f"predict a.png --models {models} --format csv 2>&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition(",")[0] for line in done.stdout.splitlines()] == ["path", "a.png"]


def test_a_closed_input_is_an_empty_file(models: Path, tmp_path: Path) -> None:
    done = in_shell(f"predict - --models {models} --format csv <&-", tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [row["error"] for row in csv.DictReader(done.stdout.splitlines())] == ["empty_file"]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_a_name_that_the_output_cannot_encode_is_escaped(encoding: str, models: Path, tmp_path: Path) -> None:
    for name in ("a.png", "\u5f20\u4e09.png", "z.png"):
        (tmp_path / name).write_bytes(png(200))
    done = in_shell(f"predict . --models {models} --format csv", tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    paths = [row["path"] for row in csv.DictReader(done.stdout.splitlines())]
    assert paths == ["a.png", "z.png", r"\u5f20\u4e09.png"]


def in_shell(command: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line through a shell, for its redirections."""
    line = f"{shlex.quote(sys.executable)} -m covid_ct {command}"
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(line, shell=True, cwd=folder, env=variables, capture_output=True, text=True, check=False)  # noqa: S602


def test_an_output_that_is_a_link_stays_one(models: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(200))
    (tmp_path / "disk").mkdir()
    (tmp_path / "rows.csv").symlink_to(tmp_path / "disk" / "rows.csv")
    command = ["predict", str(tmp_path / "a.png"), "--models", str(models), "--output", str(tmp_path / "rows.csv")]
    assert main(command) == 0
    assert (tmp_path / "rows.csv").is_symlink()
    assert len(rows(tmp_path / "disk" / "rows.csv")) == 1


def test_companions_and_slices_without_lungs_are_no_failures_of_a_study(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, data in enumerate(series([50.0, 60.0])):
        (tmp_path / "study").mkdir(exist_ok=True)
        (tmp_path / "study" / f"{number}.dcm").write_bytes(data)
    (tmp_path / "study" / "apex.dcm").write_bytes(ct(np.zeros((64, 64), np.uint16), RescaleIntercept=-3000))
    (tmp_path / "study" / "scout").write_bytes(ct(phantom(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    (tmp_path / "study" / "report").write_bytes(ct(phantom(), Modality="SR"))
    list_of_files = ct(phantom(), PixelData=None, Modality=None, SOPClassUID=MediaStorageDirectoryStorage)
    (tmp_path / "study" / "DICOMDIR;1").write_bytes(list_of_files)
    command = ["predict", str(tmp_path / "study"), "--models", str(models), "--output", str(tmp_path / "out.csv")]
    assert main(command) == 0
    assert "2 predicted, 0 failed, 1 without lungs, 3 other files skipped" in capsys.readouterr().err
    written = {row["error"]: row["detail"] for row in rows(tmp_path / "out.csv")}
    assert written == {"": "", "no_lungs": "The slice shows no lungs."}
    assert main(command) == 0
    assert "0 predicted, 0 failed, 3 in the output already" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "study" / "apex.dcm"), "--models", str(models)]) == 1
