import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.networks.tiny import TinyClassifier, classifier_card, tiny_card, write_models
from training.__main__ import fix_hash_seed, main
from training.commands.parser import make_parser
from training.commands.recipe_files import KNOWN_LABEL_ERRORS
from training.data.covid_ct import CovidCt
from training.data.lesion_data import LesionPaths, read_lesion_inputs
from training.evaluation.scores import Scores
from training.generated.sources import SourceSizes, write_labelled, write_sources
from training.report.run import ReportJob, ReportRunRecord
from training.report.scores import Variant

TRAIN = "train --data nowhere --lesions x --clear y"
FOLDERS = "train --data tests --lesions tests --clear tests"
SMALL = "--counts any --device cpu --input-size 32 --resize 40 --batch-size 8 --checkpoint-minutes 0"


def test_evaluate_prints_the_figures_of_the_report_and_leaves_out_slices_that_are_in_covid_ct_too(
    job: ReportJob,
    report: ReportRunRecord,
    data_root: Path,
    data: CovidCt,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hospital = write_labelled(tmp_path / "hospital", 2)
    Image.fromarray(data.train.slices[0].pixels[0]).save(hospital / "COVID" / "copy.png")
    command = ["evaluate", "--data", str(data_root), "--counts", "any", "--labelled", str(hospital)]
    assert main([*command, "--models", str(job.models_folder)]) == 0
    captured = capsys.readouterr()
    lines = {line.partition("  ")[0]: line for line in captured.out.splitlines()}
    shown: dict[str, Scores | Variant] = {**report.splits, "test, masked": report.audit.variants["masked"]}
    for name, scores in shown.items():
        auc = scores.figures["auc"]
        assert f"  {auc.value:.3f} ({auc.low:.3f} to" in lines[name]
    assert "1 slices left out, which are in COVID-CT too" in captured.err
    assert lines["hospital"].split()[:3] == ["hospital", "slices", "4"]


def test_evaluate_scores_slices_of_ones_own_alone_and_compares_two_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_models(tmp_path / "new")
    write_models(tmp_path / "old", classifier_card(), TinyClassifier())
    hospital = tmp_path / "hospital"
    hospital.mkdir()
    rows = ["file,label,source,patient"]
    for number in range(8):
        grey = np.full((64, 64), 250 if number == 0 else 60 + 20 * number, np.uint8)
        Image.fromarray(grey).save(hospital / f"{number}.png")
        rows.append(f"{number}.png,{'COVID' if number % 2 else 'NonCOVID'},hospital,{number // 4}")
    (hospital / "slices.csv").write_text("\n".join(rows) + "\n")
    models = ["--models", str(tmp_path / "new"), "--models", str(tmp_path / "old")]
    written = [tmp_path / "scores.json", tmp_path / "predictions.csv"]
    command = ["evaluate", "--labelled", str(hospital), *models, "--json", str(written[0]), "--csv", str(written[1])]
    card = tiny_card().model_copy(update={"checks": {"wrong_window": 0.9}})
    write_models(tmp_path / "new", card)
    assert main(command) == 0
    out = capsys.readouterr().out
    row = next(line.split() for line in out.splitlines() if line.startswith("hospital "))
    assert row[:5] == ["hospital", "4", "patients", "8", "1"]
    assert (
        f"hospital: AUC of {tmp_path / 'new'} minus that of {tmp_path / 'old'}: +0.000 (+0.000 to +0.000, paired)"
        in out
    )
    scores = json.loads(written[0].read_text())
    assert [file["sets"]["hospital"]["refused"] for file in scores["files"]] == [1, 0]
    assert scores["files"][0]["sets"]["hospital"]["answered"]["count"] == 7
    predictions = list(csv.DictReader(written[1].read_text().splitlines()))
    assert len(predictions) == 16
    assert (predictions[0]["file"], predictions[0]["patient"], predictions[0]["refused"]) == (
        "0.png",
        "hospital 0",
        "1",
    )


def test_two_folders_of_one_name_are_refused_because_one_would_hide_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_models(tmp_path / "models")
    folders = [write_labelled(tmp_path / patient / "hospital", 1) for patient in ("one", "two")]
    command = ["evaluate", "--models", str(tmp_path / "models")]
    assert main([*command, *(text for folder in folders for text in ("--labelled", str(folder)))]) == 1
    assert "--labelled: two sets are named hospital; give one folder another name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("report --data nowhere", "--data nowhere: there is no such folder"),
        ("report --data tests --weights vgg19_bn=README.md", "README.md: not a PyTorch state dict"),
        ("report --data tests --out README.md", "--out README.md: README.md is a file, not a folder"),
        ("report --data tests --out README.md/run", "README.md is a file, not a folder"),
        ("report --data nowhere --epochs 0", "--epochs 0: Input should be greater than 0"),
        ("report --data nowhere --weights vgg.pth", "--weights vgg.pth: must be vgg19_bn or vgg16_bn"),
        ("report --data nowhere --weights vgg19_bn=gone.pth", "gone.pth: there is no such file"),
        (f"{TRAIN} --steps few", "--steps few: Input should"),
        (TRAIN, "--data nowhere: there is no such folder"),
        (f"{TRAIN} --run README.md", "--run README.md: README.md is a file, not a folder"),
        (f"{TRAIN} --release README.md", "--release README.md: README.md is a file, not a folder"),
        (f"{TRAIN} --release-anyway", "--release-anyway: pass --release too"),
        (FOLDERS, "--labelled: pass a source with both classes, on which the network is judged"),
        (f"{FOLDERS} --run docs --fresh", "--fresh docs: it has files but no run.json, so it is not a run"),
        (f"{FOLDERS} --release", "models has version 2.1.0, and 1.0.0 is not higher; pass --model-version 2.1.1"),
        ("evaluate", "pass --labelled FOLDER with your labelled slices, or --data with COVID-CT"),
        ("evaluate --labelled tests --csv nowhere/p.csv", "--csv nowhere/p.csv: there is no folder nowhere"),
        ("evaluate --data tests --models README.md", "--models README.md: there is no such folder"),
        ("evaluate --data tests --models tests", "tests/metrics.json: can't read the manifest"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_status_1(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (f"{TRAIN} --lesion x", "unknown option --lesion; did you mean --lesions?"),
        ("report --data x --seed 1", "unknown option --seed; did you mean --seeds?"),
        ("report --data x --device tpu", "tpu is not auto, cpu, cuda, cuda:N or mps"),
        ("report --data x --model-version ../2", "../2 is not a version such as 2.1.0"),
        ("trian", "invalid choice: 'trian'"),
    ],
)
def test_a_mistyped_option_is_one_line_with_the_right_one(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_known_label_errors_of_covid_ct_are_corrected_unless_the_user_says_none() -> None:
    parser = make_parser()
    assert parser.parse_args(TRAIN.split()).corrections == KNOWN_LABEL_ERRORS
    assert KNOWN_LABEL_ERRORS.is_file()
    assert parser.parse_args(f"{TRAIN} --corrections none".split()).corrections is None


def test_threads_are_those_that_were_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        assert main(["report", "--data", "tests", "--threads", "3"]) == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("thin")
def test_check_prints_the_table_and_every_problem_and_claims_nothing(
    tmp_path: Path, thin_weights: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = SourceSizes({"train": 3, "val": 2, "test": 3}, 3, 6, 1, 3, 3)
    sources = write_sources(tmp_path / "sources", sizes)
    command = ["train", "--check", "--counts", "any", "--run", str(tmp_path / "run")]
    for option, name in (("data", "covid-ct"), ("lesions", "lesions"), ("clear", "clear"), ("labelled", "hospital")):
        command += [f"--{option}", str(sources / name)]
    assert main([*command, "--weights", str(thin_weights)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:3] == ["read", "for", "source"]
    assert out[-1] == "all inputs can be used"
    assert main(command) == 0, "a check downloads no weights"
    capsys.readouterr()
    shutil.rmtree(sources / "clear")
    (sources / "clear").mkdir()
    assert main([*command, "--weights", str(weights)]) == 1
    captured = capsys.readouterr()
    problems = [line for line in captured.out.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 2
    assert "clear: no images" in problems[0]
    assert "not the weights of vgg19_bn" in problems[1]
    assert captured.err.splitlines()[-1] == "error: 2 of the inputs' problems must be solved before training"
    command.remove("--check")
    assert main([*command, "--weights", str(weights)]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("(and 1 more; --check lists them)")
    assert not (tmp_path / "run").exists()


def test_help_and_mistakes_need_no_torch() -> None:
    """Importing torch takes seconds, which nobody waits for to read a list of options."""
    code = "import sys, training.__main__; training.__main__.make_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_runs_have_the_same_order_of_hashes_so_that_their_files_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda path, arguments: started.append(arguments))
    monkeypatch.setattr("sys.orig_argv", ["python", "-W", "error", "-m", "training", "report"])
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    fix_hash_seed()
    fix_hash_seed()
    assert started == [[sys.executable, "-W", "error", "-m", "training", "report"]]


@pytest.mark.usefixtures("thin")
def test_a_killed_command_resumes_when_it_is_run_again(
    data_root: Path, thin_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real process, killed with SIGKILL once its first checkpoint is there."""
    command = ["report", "--data", str(data_root)]
    command += ["--weights", f"vgg19_bn={thin_weights}", "--architectures", "vgg19_bn", "--out", str(tmp_path / "out")]
    command += [*SMALL.split(), "--epochs", "3"]
    program = [sys.executable, "-m", "tests.support.networks.thin_vgg", *command]
    with subprocess.Popen(program, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 1: " in line:
                break
        process.kill()
    assert main(command) == 0
    again = capsys.readouterr().err
    assert "continuing after epoch" in again
    assert "epoch 3: " in again
    assert "epoch 1: " not in again


def test_drawn_sources_are_complete_and_are_not_drawn_over_other_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sources"
    assert main(["draw-sources", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} >= {"covid-ct", "hospital", "lesions", "clear", "other"}
    inputs = read_lesion_inputs(
        LesionPaths(folder / "covid-ct", folder / "lesions", folder / "clear", (folder / "hospital",), counts="any")
    )
    assert inputs.problems == []
    assert main(["draw-sources", str(folder)]) == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert main(["draw-sources", str(tmp_path / "mine")]) == 1
    assert "mine: the folder has files; pass a new one" in capsys.readouterr().err
