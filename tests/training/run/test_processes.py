from pathlib import Path

import numpy as np
import pytest
import torch

from training.run import processes
from training.run.processes import Processes, current, first_only, joined


def test_without_torchrun_a_process_is_alone_and_exchanges_nothing(tmp_path: Path) -> None:
    with joined():
        alone = current()
        assert (alone.is_first, alone.count) == (True, 1)
        assert list(alone.places(3)) == [0, 1, 2]
        assert alone.sum(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
        rows = np.ones((2, 3), np.float32)
        assert alone.gather(rows) is rows
        assert alone.lacks(tmp_path / "nowhere")
        alone.check_same(7, "the step")
        alone.leave_to_first()


def test_places_of_all_processes_together_are_the_sequence_once() -> None:
    places = [place for rank in range(3) for place in Processes(rank, 3).places(8)]
    assert sorted(places) == list(range(8))


def test_only_the_first_process_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    first_only(done.append)(1)
    monkeypatch.setattr(processes, "_current", Processes(1, 2))
    monkeypatch.setattr(Processes, "wait", lambda self: None)
    first_only(done.append)(2)
    assert done == [1]
