import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.external_ct import write_external_ct
from training.__main__ import main
from training.release.report import Report
from training.release.train import TrainingJob

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
TUNED = ["--fit-on", "train", "--fine-tuning", "true", "--epochs", "1"]


def test_evaluate_prints_the_figures_of_the_report_and_scores_other_sources(
    job: TrainingJob, report: Report, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    external = write_external_ct(tmp_path / "hospital", 3)
    common = ["--data", str(data_root), "--counts", "any", "--external", str(external)]
    assert main(["evaluate", *common, "--models", str(job.models_folder)]) == 0
    of_fp16, _, _ = capsys.readouterr().out.partition("covid-ct-vgg19_bn.int8.pt")
    lines = lines_of_splits(of_fp16)
    for line, (name, scores) in zip(lines, report.splits.items(), strict=True):
        auc = scores.figures["auc"]
        assert line.startswith(f"{name} (n = 8, threshold {scores.threshold:.3f}): accuracy ")
        assert line.endswith(f"auc {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})")
    assert "test, masked (n = 8" in of_fp16
    assert "external, hospital (n = 6" in of_fp16


def lines_of_splits(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("val (", "test ("))]


def test_best_prints_out_of_fold_figures_and_takes_a_table_of_patients(
    data_root: Path, weights: Path, patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--run", str(tmp_path / "run"), "--models", str(tmp_path / "models")]
    files = ["--data", str(data_root), "--weights", str(weights), "--patients", str(patients), *folders]
    assert main(["train", *files, *SMALL]) == 0
    trained = capsys.readouterr().out
    assert [line.partition(",")[0] for line in trained.splitlines()[:2]] == ["out-of-fold (n = 24", "test (n = 8"]
    assert main(["evaluate", "--data", str(data_root), "--counts", "any", "--models", str(tmp_path / "models")]) == 0
    of_fp16, _, _ = capsys.readouterr().out.partition("covid-ct-vgg19_bn.int8.pt")
    assert lines_of_splits(of_fp16) == lines_of_splits(trained), "test alone: the model was fitted to validation"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "neither CT_NonCOVID.zip nor the folder CT_NonCOVID is there"),
        (["--data", "nowhere", "--penalty", "high"], "recipe field probe.penalty = 'high'"),
        (["--data", "nowhere", "--epochs", "3"], "recipe best has no fine_tuning, so epochs = '3' does nothing"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_status_1(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_killed_command_resumes_when_it_is_run_again(data_root: Path, weights: Path, tmp_path: Path) -> None:
    """A real process, killed with SIGKILL once its first checkpoint is there."""
    command = [sys.executable, "-m", "training", "train", "--data", str(data_root), "--weights", str(weights)]
    command += ["--run", str(tmp_path / "run"), "--models", str(tmp_path / "models"), *SMALL, *TUNED, "--epochs", "3"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 1: " in line:
                break
        process.kill()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "continuing after epoch" in again.stderr
    assert "epoch 3: " in again.stderr
    assert "epoch 1: " not in again.stderr
