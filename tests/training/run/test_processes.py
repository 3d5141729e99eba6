import os
import subprocess
import sys
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
        assert list(alone.own(3)) == [0, 1, 2]
        assert alone.sum(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
        rows = np.ones((2, 3), np.float32)
        assert alone.gather(rows) is rows
        assert alone.lacks(tmp_path / "nowhere")
        alone.check_same(7, "the step")
        alone.leave_to_first()


def test_places_of_all_processes_together_are_the_sequence_once() -> None:
    places = [place for rank in range(3) for place in Processes(rank, 3).own(8)]
    assert sorted(places) == list(range(8))


def test_only_the_first_process_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    first_only(done.append)(1)
    monkeypatch.setattr(processes, "_current", Processes(1, 2))
    monkeypatch.setattr(Processes, "wait", lambda self: None)
    first_only(done.append)(2)
    assert done == [1]


SCRIPT = """
import sys, time, os, signal
import numpy as np, torch
from pathlib import Path
from training.errors import TrainingError
from training.run.processes import current, joined
try:
    with joined():
        here = current()
        rows = here.gather(np.array(list(here.own(5)), np.float32)[:, None])
        print("gathered", rows[:, 0].tolist(), here.sum(torch.tensor(here.rank + 1)).item(), flush=True)
        try:
            here.check_same(here.rank, "the step")
        except TrainingError as error:
            print("refused:", error, flush=True)
        here.wait()
        if here.rank == 1 and sys.argv[1] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[1] == "wrong":
            raise TrainingError("--data nowhere: there is no such folder")
        here.wait()
        here.leave_to_first()
        print("first alone", current().count, flush=True)
except TrainingError as error:
    print("error:", error, file=sys.stderr, flush=True)
    sys.exit(1)
"""


def torchrun(tmp_path: Path, ending: str) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(Path(__file__).parents[3]))
    return subprocess.run(
        [*command, str(tmp_path / "script.py"), ending], env=environment, capture_output=True, text=True, timeout=120
    )


def test_two_processes_exchange_and_the_first_continues_alone(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "well")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "gathered [0.0, 1.0, 2.0, 3.0, 4.0] 3",
        "refused: the processes do not agree on the step; the run folder must be on a shared disk",
        "first alone 1",
    ]


@pytest.mark.parametrize(
    ("ending", "line"),
    [
        (
            "killed",
            "error: another process of this run ended, or it was stopped; run the same command again to continue",
        ),
        ("wrong", "error: --data nowhere: there is no such folder"),
    ],
)
def test_a_killed_process_or_an_error_ends_all_with_one_line(ending: str, line: str, tmp_path: Path) -> None:
    done = torchrun(tmp_path, ending)
    assert done.returncode == 1
    assert [each for each in done.stderr.splitlines() if each.startswith("error: ")] == [line]
