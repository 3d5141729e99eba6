from pathlib import Path

import pytest
import torch

from training.errors import TrainingError
from training.run.run_folder import restoring


def test_a_file_that_is_no_checkpoint_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"history": []}, path)
    message = r"last\.pt: not a checkpoint of this run \('network'\); --fresh"
    with pytest.raises(TrainingError, match=message), restoring(path):
        torch.load(path, weights_only=True)["network"]


def test_what_is_no_fault_of_the_file_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), restoring(tmp_path / "last.pt"):
        raise KeyboardInterrupt
