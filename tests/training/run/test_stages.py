from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from training.errors import TrainingError
from training.run.record import Record
from training.run.stages import resumed_arrays, resumed_network, resumed_record


class Count(Record):
    """A record of one number."""

    count: int


@dataclass
class Boxes:
    """Arrays of a stage."""

    box: NDArray[np.int64]


def test_a_stage_is_computed_again_only_if_its_record_is_gone_or_not_valid(tmp_path: Path) -> None:
    path, counts = tmp_path / "checks.json", iter(range(9))

    def compute() -> Count:
        return Count(count=next(counts))

    assert [resumed_record(path, Count, compute).count for _ in range(2)] == [0, 0]
    assert resumed_record(path, Count, compute, lambda record: record.count > 0).count == 1
    path.write_text('{"of another version": 1}')
    assert resumed_record(path, Count, compute).count == 2


def test_weights_of_a_finished_stage_are_loaded_and_not_trained_again(tmp_path: Path) -> None:
    trained = nn.Linear(2, 1)
    first = resumed_network(tmp_path / "a.pt", nn.Linear(2, 1), lambda: trained)
    again = resumed_network(tmp_path / "a.pt", nn.Linear(2, 1), lambda: pytest.fail("it is trained again"))
    assert torch.equal(first.weight, trained.weight)
    assert torch.equal(again.weight, trained.weight)
    assert not again.training
    with pytest.raises(TrainingError, match=r"a\.pt: not a checkpoint of this run .*; --fresh starts over"):
        resumed_network(tmp_path / "a.pt", nn.Linear(3, 1), lambda: trained)


def test_arrays_of_a_stage_are_read_back_and_damaged_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lungs.npz"
    resumed_arrays(path, Boxes, lambda: Boxes(np.arange(4)))
    again = resumed_arrays(path, Boxes, lambda: pytest.fail("they are computed again"))
    assert again.box.tolist() == [0, 1, 2, 3]
    path.write_bytes(b"half a file")
    with pytest.raises(TrainingError, match=r"lungs\.npz: not a checkpoint of this run"):
        resumed_arrays(path, Boxes, lambda: Boxes(np.arange(4)))
