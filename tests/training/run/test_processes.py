import pytest

from training.run import processes
from training.run.processes import Processes, first_only


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
