"""Runs of two real processes, started by torchrun; figures of docs/training.md."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.processes import parallel
from tests.support.processes.server import ROOT
from tests.support.sources.covid_ct import small_lists, write_data_set
from tests.support.sources.lesion_sources import chest_files, write_clear, write_labelled, write_lesions
from training.network.weights import write_random_weights

pytestmark = pytest.mark.soak

ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
ENDED = "error: another process of this run ended, or it was stopped; run the same command again to continue"


def torchrun(count: int) -> list[str]:
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    return [*command, "--nproc-per-node", str(count)]


SCRIPT = """
import sys, time, os, signal
import numpy as np, torch
from pathlib import Path
from training.errors import TrainingError
from training.run.processes import current, joined
try:
    with joined():
        here = current()
        rows = here.gather(np.array(list(here.places(5)), np.float32)[:, None])
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


def ended(tmp_path: Path, ending: str) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [*torchrun(2), str(tmp_path / "script.py"), ending]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


def test_two_processes_exchange_and_the_first_continues_alone(tmp_path: Path) -> None:
    done = ended(tmp_path, "well")
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
            ENDED,
        ),
        ("wrong", "error: --data nowhere: there is no such folder"),
    ],
)
def test_a_killed_process_or_an_error_ends_all_with_one_line(ending: str, line: str, tmp_path: Path) -> None:
    done = ended(tmp_path, ending)
    assert done.returncode == 1
    assert [line_ for line_ in done.stderr.splitlines() if line_.startswith("error: ")] == [line]


def run(folder: Path, count: int, steps: int) -> list[dict[str, float]]:
    """Train for so many steps with torchrun, and return the losses of each."""
    command = [*torchrun(count), "-m", "tests.support.processes.parallel", str(folder), str(steps)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    losses: list[dict[str, float]] = json.loads((folder / f"losses-{count}.json").read_text())
    return losses


def test_two_processes_have_the_losses_of_one_and_one_resumes_what_two_began(tmp_path: Path) -> None:
    """Batches of three slices, so that the parts differ in size. Tolerance: 0.1 % of each loss at each step."""
    parallel.read_slices(tmp_path / "one" / "slices")
    parallel.read_slices(tmp_path / "two" / "slices")
    one = run(tmp_path / "one", 1, 6)
    two = run(tmp_path / "two", 2, 3)
    two += run(tmp_path / "two", 1, 3)
    assert len(one) == len(two) == 6
    difference = max(abs(a[name] - b[name]) / abs(a[name]) for a, b in zip(one, two, strict=True) for name in a)
    print(f"\n  soak: losses of two processes differ from those of one by at most {difference:.1e} of their value")
    assert difference < 1e-3


def test_a_release_of_two_processes_is_killed_and_finished_by_one(tmp_path: Path) -> None:
    """The whole command. SIGKILL of the second process during the training of the network ends all."""
    lists = small_lists({"train": 3, "val": 2, "test": 2})
    data = write_data_set(tmp_path / "covid-ct", lists, chest_files(lists))
    options = ["-m", "--", "training", "train", "--data", str(data), "--counts", "any", "--run", str(tmp_path / "run")]
    options += ["--weights", str(write_random_weights(tmp_path / "vgg19_bn.pth")), "--finder-steps", "50"]
    options += [
        "--labelled",
        str(write_labelled(tmp_path / "hospital", 3)),
        "--clear",
        str(write_clear(tmp_path / "c")),
    ]
    options += ["--lesions", str(write_lesions(tmp_path / "lesions", volumes=6, slices=1)), "--finder-batch-size", "12"]
    options += ["--left-out-steps", "2", "--batch-size", "2", "--steps", "12"]
    environment = ENVIRONMENT | {"PYTHONHASHSEED": "0"}
    with subprocess.Popen([*torchrun(2), *options], cwd=ROOT, env=environment, stderr=subprocess.PIPE) as running:
        while not (tmp_path / "run" / "left-out.ckpt").exists():
            assert running.poll() is None
            time.sleep(0.1)
        time.sleep(3)
        (second,) = (child for child in psutil.Process(running.pid).children() if child.environ().get("RANK") == "1")
        second.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        assert running.stderr is not None
        error = running.stderr.read().decode()
    print(f"\n  soak: all processes had ended {time.monotonic() - killed:.1f} s after one was killed")
    assert running.returncode != 0
    assert [line for line in error.splitlines() if line.startswith("error: ")] == [ENDED]
    done = subprocess.run(
        [sys.executable, "-m", *options[2:]], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model" / "metrics.json").is_file()
