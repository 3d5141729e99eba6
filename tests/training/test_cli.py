import subprocess
import sys
from pathlib import Path

import pytest

from training.__main__ import main
from training.recipe import Recipe

SMALL = [
    "--counts",
    "any",
    "--together",
    "patient",
    "--input-size",
    "32",
    "--resize",
    "40",
    "--components",
    "8",
    "--fit-on",
    "train",
    "--epochs",
    "1",
    "--probe-views",
    "1",
    "--device",
    "cpu",
]


def test_train_then_evaluate_print_the_same_test_figures(
    data_root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--data", str(data_root), "--counts", "any"]
    folders = ["--run", str(tmp_path / "run"), "--models", str(tmp_path / "models")]
    assert main(["train", "--data", str(data_root), "--weights", str(weights), *folders, *SMALL]) == 0
    trained = lines_of_splits(capsys.readouterr().out)
    assert main(["evaluate", *common, "--models", str(tmp_path / "models")]) == 0
    evaluated = capsys.readouterr().out
    of_fp16 = evaluated[: evaluated.index("covid-ct-vgg19_bn.int8.pt")]
    assert lines_of_splits(of_fp16) == trained
    assert len(trained) == 2
    assert "test, masked (n = 8" in evaluated
    assert "test, by file format alone: accuracy 0.500, auc 0.500" in evaluated


def lines_of_splits(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("val (", "test ("))]


def test_best_tells_what_its_threshold_was_chosen_on_and_takes_a_table_of_patients(
    data_root: Path, weights: Path, patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--run", str(tmp_path / "run"), "--models", str(tmp_path / "models")]
    files = ["--data", str(data_root), "--weights", str(weights), "--patients", str(patients), *folders]
    assert main(["train", *files, *SMALL, "--fit-on", "train+val", "--epochs", "0"]) == 0
    trained = capsys.readouterr().out
    assert [line.partition(",")[0] for line in trained.splitlines()[:2]] == ["out-of-fold (n = 24", "test (n = 8"]
    assert main(["evaluate", "--data", str(data_root), "--counts", "any", "--models", str(tmp_path / "models")]) == 0
    of_fp16, _, _ = capsys.readouterr().out.partition("covid-ct-vgg19_bn.int8.pt")
    assert lines_of_splits(of_fp16) == lines_of_splits(trained), "test alone: the model was fitted to validation"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "neither CT_NonCOVID.zip nor the folder CT_NonCOVID is there"),
        (["--data", "nowhere", "--learning-rate", "fast"], "recipe field learning_rate = 'fast'"),
        (["--data", "nowhere", "--epochs", "3"], "fit_on = train+val is for a probe without epochs"),
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


def test_an_interrupted_command_goes_on_when_it_is_run_again(
    data_root: Path, weights: Path, tmp_path: Path, recipe: Recipe
) -> None:
    """A real process, killed with SIGKILL once its first checkpoint is there."""
    command = [sys.executable, "-m", "training", "train", "--data", str(data_root), "--weights", str(weights)]
    command += ["--run", str(tmp_path / "run"), "--models", str(tmp_path / "models"), *SMALL, "--epochs", "3"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 1: " in line:
                break
        process.kill()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on after epoch" in again.stderr
    assert "epoch 3: " in again.stderr
    assert "epoch 1: " not in again.stderr
