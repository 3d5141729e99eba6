import csv
import io
import json
import os
import pty
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from client import Prediction, model_folder
from client.__main__ import main
from client.engines import LocalEngine
from client.model_folder import find_models
from service import __version__
from service.model import loading
from service.model.card import ManifestFile
from service.model.file import model_bytes
from service.model.loading import LoadOptions, load_predictor
from tests.support.files.dicoms import ct, phantom
from tests.support.networks.tiny import TinyNetwork, tiny_card, write_manifest
from tests.support.processes.client import panels, png
from tests.support.processes.server import ROOT, Server, free_port, running


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
    assert "5 answered, 1 failed, 1 other files passed over" in error
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
    assert "1 answered, 0 failed, 5 in the output already" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("arguments", "status", "telling"),
    [
        (["predict", "a.png", "--models", "nowhere"], 1, "can't read the manifest"),
        (["predict", "a.png", "--output", "out.txt"], 2, "--output needs"),
        (["predict", "a.png", "--output", "out.csv", "--format", "table"], 2, "--output needs"),
        (["predict", "a.png", "--window", "0", "0"], 2, "width above 0"),
        (["predict", "a.png", "--output", "nowhere/out.csv"], 2, "there is no folder nowhere"),
        (["predict", "a.png", "--output", "tests", "--format", "csv"], 2, "is a folder"),
        (["predict", "a.png", "--output", "/dev/full", "--format", "csv"], 2, "or a device"),
        (["predict", "a.png", "--url", "localhost", "--models", "models"], 2, "leave them out with --url"),
        (["predict", "a.png", "--api-key", "k"], 2, "name it with --url"),
        (["predict", "a.png", "--url", "ftp://localhost"], 2, "is not the address of a service"),
        (["model", "show", "--models", "nowhere"], 1, "can't read the manifest"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    arguments: list[str], status: int, telling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert telling in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("where", ["local", "service"])
def test_the_operating_point_is_chosen_for_the_model_here_and_for_a_service(
    where: str, models: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(png(110))
    place = ["--models", str(models)] if where == "local" else ["--url", server.url]
    command = ["predict", str(tmp_path / "a.png"), *place]
    found = []
    for point in ("balanced", "screening"):
        output = tmp_path / f"{point}.csv"
        assert main([*command, "--operating-point", point, "--output", str(output)]) == 0
        found += [(row["operating_point"], float(row["threshold"]), row["label"]) for row in rows(output)]
    assert found == [("balanced", 0.5, "NonCOVID"), ("screening", 0.3, "COVID")]
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
    found = [(row["path"].rpartition("#")[2], row["error"]) for row in rows(output)]
    assert found == [("0", "wrong_window"), ("1", ""), ("2", "wrong_window"), ("3", "")]


def test_a_fault_of_this_program_in_one_file_ends_no_run(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, level in enumerate((40, 100, 200)):
        (tmp_path / f"{index}.png").write_bytes(png(level))

    def failing(self: LocalEngine, image: bytes) -> Prediction:
        if image == png(100):
            raise RuntimeError("a bug")
        return answer(self, image)

    answer = LocalEngine.predict
    monkeypatch.setattr(LocalEngine, "predict", failing)
    output = tmp_path / "out.csv"
    assert main(["predict", str(tmp_path), "--models", str(models), "--output", str(output)]) == 1
    assert [row["error"] for row in rows(output)] == ["", "internal_error", ""]
    assert rows(output)[1]["detail"] == "This program failed: RuntimeError: a bug"


@pytest.mark.parametrize(
    ("paths", "status", "telling"),
    [
        (["empty"], 1, "0 answered, 1 failed"),
        (["notes"], 1, "error: no image was found in notes"),
        (["a.png", "./a.png", "a.png"], 0, "1 answered, 0 failed, 2 named again"),
        (["-"], 0, "1 answered, 0 failed"),
        (["missing.png", "a.png"], 1, "1 answered, 1 failed"),
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


def test_the_model_is_found_here_or_in_the_clone_and_the_folders_tried_are_told(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_models(None) == ROOT / "models"
    monkeypatch.setattr(model_folder, "_clones", lambda: [tmp_path / "clone"])
    for command in (["predict", "a.png"], ["model", "show"]):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert f"tried models/metrics.json, {tmp_path}/clone/models/metrics.json" in error
        assert "--models DIR" in error
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "models").symlink_to(models)
    assert find_models(None) == tmp_path / "clone" / "models"
    (tmp_path / "models").symlink_to(models)
    assert find_models(None) == Path("models")
    assert find_models(Path("mine")) == Path("mine")


def test_an_installation_knows_the_clone_that_it_was_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    for content, clone in (
        ('{"dir_info": {}, "url": "file:///some/with%20space"}', [Path("/some/with space")]),
        ('{"url": "https://example.org/covid-ct.zip"}', []),
        (None, []),
        ("damaged", []),
    ):
        records = {"direct_url.json": content}
        monkeypatch.setattr(model_folder, "distribution", lambda _, read=records.get: SimpleNamespace(read_text=read))
        assert model_folder._clones() == [ROOT, *clone]


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


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"covid-ct {__version__} ")


def test_a_service_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(png())
    assert main(["predict", str(tmp_path / "a.png"), "--url", f"http://127.0.0.1:{free_port()}"]) == 1
    assert "no answer from the service" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["predict"], ["nonsense"], ["predict", "a", "--format", "xml"]])
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_model_show_tells_the_card_and_the_hash(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "show", "--models", str(models)]) == 0
    shown_to_people = capsys.readouterr().out
    for words in (
        "tiny 0.0.1",
        "screening 0.3000",
        "no_lungs above 0.9500",
        "left out  elsewhere: auc 0.400",
        "test      auc",
    ):
        assert words in shown_to_people
    assert main(["model", "show", "--models", str(models), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["card"]["name"] == "tiny"
    assert len(shown["sha256"]) == 64
    served = load_predictor(LoadOptions(models, device="auto"))
    assert (shown["sha256"], shown["precision"]) == (served.sha256, served.precision)
    served.close()


def test_model_show_tells_the_file_that_is_used_here(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fp16 = json.loads((models / "metrics.json").read_text())["files"][0]
    shutil.copytree(models, tmp_path / "models")
    card = tiny_card().model_copy(update={"precision": "int8"})
    data = model_bytes(TinyNetwork().eval(), card)
    (tmp_path / "models" / "tiny.int8.pt").write_bytes(data)
    row = ManifestFile.describe("tiny.int8.pt", "int8", data)
    write_manifest(tmp_path / "models", ManifestFile.model_validate(fp16), row)
    for native, name, precision in ((True, "tiny.int8.pt", "int8"), (False, "tiny.fp16.pt", "fp32")):
        monkeypatch.setattr(loading, "has_native_int8", lambda native=native: native)
        monkeypatch.setattr(loading, "has_native_bf16", lambda _: False)
        assert main(["model", "show", "--models", str(tmp_path / "models"), "--device", "cpu", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["file"], shown["precision"], shown["agreement"]) == (name, precision, None)


def test_model_show_tells_the_test_answers_of_the_file_that_is_used(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(models, tmp_path / "models")
    manifest = json.loads((models / "metrics.json").read_text())
    own = {"auc": 0.9, "decisions_equal": 0.99, "largest_difference": 0.01}
    manifest["agreement"] = {manifest["files"][0]["name"]: own}
    (tmp_path / "models" / "metrics.json").write_text(json.dumps(manifest))
    assert main(["model", "show", "--models", str(tmp_path / "models")]) == 0
    assert "AUC 0.900, same label for 99.0% of the test slices" in capsys.readouterr().out


def test_help_does_not_pay_for_torch() -> None:
    script = (
        "import sys\nfrom client.__main__ import main\n"
        "try:\n    main(['predict', '--help'])\nexcept SystemExit:\n    print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "examples:" in done.stdout
    assert done.stdout.endswith("False\n")


def test_progress_is_shown_on_a_terminal_only(models: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    command = [sys.executable, "-m", "client", "predict", str(tmp_path / "a.png"), "--models", str(models)]
    quiet = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert quiet.returncode == 0
    assert "\r" not in quiet.stderr
    assert "a.png" in quiet.stdout
    main_end, terminal = pty.openpty()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=terminal, timeout=120, check=True)
    os.close(terminal)
    assert "\r" in os.read(main_end, 10_000).decode()
    os.close(main_end)
