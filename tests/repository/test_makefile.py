import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("report", "make: set DATA to a checkout of github.com/UCSD-AI4H/COVID-CT"),
        ("report DATA=gone", "make: set DATA to a checkout"),
        ("train", "make: set DATA to a checkout"),
        ("train DATA=docs", "make train: set LESIONS to a folder of slices with lesion masks"),
        ("train DATA=docs LESIONS=docs CLEAR=gone", "make train: set CLEAR to a folder"),
        ("train DATA=docs LESIONS=docs CLEAR=docs", "make train: set LABELLED to a folder"),
        ("train DATA=docs LESIONS=docs CLEAR=docs LABELLED=gone", "make train: set LABELLED to a folder"),
    ],
)
def test_variables_are_checked_before_gigabytes_are_installed(tmp_path: Path, arguments: str, message: str) -> None:
    """With an interpreter that does not exist, so that nothing could be installed if they were not."""
    command = ["make", f"VENV={tmp_path / 'venv'}", f"PYTHON={tmp_path / 'python'}", *arguments.split()]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "venv").exists()
