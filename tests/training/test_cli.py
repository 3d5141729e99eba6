import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.external_ct import write_external_ct
from training.__main__ import main
from training.release.report import Report
from training.release.report_run import ReportJob

TRAIN = ["train", "--data", "nowhere", "--lesions", "x", "--clear", "y"]
SMALL = ["--counts", "any", "--device", "cpu", "--input-size", "32", "--resize", "40", "--batch-size", "8"]


def test_evaluate_prints_the_figures_of_the_report_and_scores_other_sources(
    job: ReportJob, report: Report, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    external = write_external_ct(tmp_path / "hospital", 3)
    common = ["--data", str(data_root), "--counts", "any", "--external", str(external)]
    assert main(["evaluate", *common, "--models", str(job.models_folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    of_splits = [line for line in lines if line.startswith(("val (", "test ("))]
    for line, (name, scores) in zip(of_splits, report.splits.items(), strict=True):
        assert line == f"{name} {scores}"
        auc = scores.figures["auc"]
        assert line.startswith(f"{name} (n = 8, threshold 0.500): accuracy ")
        assert line.endswith(f"auc {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})")
    assert any(line.startswith("test, masked (n = 8") for line in lines)
    assert any(line.startswith("external, hospital (n = 6") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "--data", "nowhere"], "neither CT_NonCOVID.zip nor the folder CT_NonCOVID is there"),
        (["report", "--data", "nowhere", "--epochs", "0"], "--epochs 0: Input should be greater than 0"),
        (["report", "--data", "nowhere", "--weights", "vgg.pth"], "--weights vgg.pth: must be vgg19_bn or vgg16_bn"),
        (["report", "--data", "nowhere", "--weights", "vgg19_bn=gone.pth"], "gone.pth: there is no such file"),
        (
            ["train", "--data", "nowhere", "--lesions", "x", "--clear", "y", "--steps", "few"],
            "--steps few: Input should",
        ),
        (TRAIN, "neither CT_NonCOVID.zip nor the folder"),
        (["evaluate", "--data", "nowhere", "--models", "nowhere"], "nowhere/metrics.json: can't read the manifest"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_status_1(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_killed_command_resumes_when_it_is_run_again(data_root: Path, thin_weights: Path, tmp_path: Path) -> None:
    """A real process, killed with SIGKILL once its first checkpoint is there."""
    command = [sys.executable, "-m", "tests.support.thin_vgg", "report", "--data", str(data_root)]
    command += ["--weights", f"vgg19_bn={thin_weights}", "--architectures", "vgg19_bn", "--out", str(tmp_path / "out")]
    command += [*SMALL, "--epochs", "3"]
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
