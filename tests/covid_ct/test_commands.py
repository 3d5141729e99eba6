import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from covid_ct import models as models_module
from covid_ct.__main__ import main
from covid_ct.models import find_models
from service import __version__
from service.model import choice
from service.model.card import ManifestFile
from service.model.file import model_bytes
from service.model.loading import LoadOptions, load_predictor
from tests.support.networks.tiny import TinyNetwork, tiny_card, write_manifest
from tests.support.processes.client import png
from tests.support.processes.server import ROOT, free_port


def test_the_model_is_found_here_or_in_the_clone_and_the_folders_tried_are_told(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_models(None) == ROOT / "models"
    monkeypatch.setattr(models_module, "_clones", lambda: [tmp_path / "clone"])
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
        monkeypatch.setattr(models_module, "distribution", lambda _, read=records.get: SimpleNamespace(read_text=read))
        assert models_module._clones() == [ROOT, *clone]


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"covid-ct {__version__} ")


def test_a_service_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(png())
    assert main(["predict", str(tmp_path / "a.png"), "--url", f"http://127.0.0.1:{free_port()}"]) == 1
    assert "no response from the service at " in capsys.readouterr().err


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
        "test      auc 0.500",
        "test      sensitivity at 0.50 0.500",
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
    monkeypatch.setattr(choice, "has_native_bf16", lambda _: False)
    for times, name, precision in (
        ({"int8": 2.0, "fp32": 9.0}, "tiny.int8.pt", "int8"),
        ({"fp32": 1.0, "int8": 2.0}, "tiny.fp16.pt", "fp32"),
    ):
        monkeypatch.setattr(choice, "measure_precisions", lambda *_, times=times: times)
        assert main(["model", "show", "--models", str(tmp_path / "models"), "--device", "cpu", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["file"], shown["precision"], shown["agreement"]) == (name, precision, None)
        assert shown["precision_milliseconds"] == times
        assert main(["model", "show", "--models", str(tmp_path / "models"), "--device", "cpu"]) == 0
        assert f"of one convolution here: {precision} {times[precision]}" in capsys.readouterr().out


def test_model_show_tells_the_test_answers_of_the_file_that_is_used(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(models, tmp_path / "models")
    manifest = json.loads((models / "metrics.json").read_text())
    measured = {"auc": 0.9, "decisions_equal": 0.99, "largest_difference": 0.01}
    manifest["agreement"] = {manifest["files"][0]["name"]: measured}
    (tmp_path / "models" / "metrics.json").write_text(json.dumps(manifest))
    assert main(["model", "show", "--models", str(tmp_path / "models")]) == 0
    assert "AUC 0.900, same label for 99.0% of the test slices" in capsys.readouterr().out


def test_help_does_not_pay_for_torch() -> None:
    script = (
        "import sys\nfrom covid_ct.__main__ import main\n"
        "try:\n    main(['predict', '--help'])\nexcept SystemExit:\n    print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "examples:" in done.stdout
    assert done.stdout.endswith("False\n")


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


def test_progress_is_shown_on_a_terminal_only(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(png())
    arguments = ["predict", str(tmp_path / "a.png"), "--models", str(models)]
    assert main(arguments) == 0
    quiet = capsys.readouterr()
    assert "\r" not in quiet.err
    assert "a.png" in quiet.out
    command = [sys.executable, "-m", "covid_ct", *arguments]
    main_end, terminal = pty.openpty()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=terminal, timeout=120, check=True)
    os.close(terminal)
    assert "\r" in os.read(main_end, 10_000).decode()
    os.close(main_end)
